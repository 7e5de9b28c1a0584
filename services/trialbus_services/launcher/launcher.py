"""Launch a study: start the services that are not up, submit the study, show it to its end."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec
import optuna
from rich.console import Console

from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.messages import events
from trialbus.protocol.endpoint import check_reachable
from trialbus.study.spec import StudySpec
from trialbus_services.config import sections, settings
from trialbus_services.config.composing import ComposedConfig
from trialbus_services.launcher.provenance import collect_origin
from trialbus_services.launcher.supervisor import Services
from trialbus_services.notify.factory import build_notifiers
from trialbus_services.optimizer.outcome import Judge
from trialbus_services.optimizer.pruning.warm_up import find_warm_up_problem
from trialbus_services.optimizer.registry import build_pruner, build_sampler
from trialbus_services.optimizer.storage import check_url, hide_password
from trialbus_services.process import exit_codes, gpus, paths
from trialbus_services.views.history import History, read_histories
from trialbus_services.views.study_view import StudyView
from trialbus_services.views.summary import print_summary
from trialbus_services.views.terminal_view import TerminalView

logger = logging.getLogger(__name__)

_TICK_S = 0.25
_REPORT_S = 120.0


@dataclass(frozen=True)
class Plan:
    """A study that is ready to run: its config is checked as far as this process can check it.

    Attributes:
        composed: Config, and the arguments with which a service composes the same config.
        spec: Specification of the study.
        bus: Settings of the bus.
        storage: Settings of the storage that records the study.
        trainer: Settings of what a worker here runs; None where trials run elsewhere.
    """

    composed: ComposedConfig
    spec: StudySpec
    bus: settings.BusSettings
    storage: settings.StorageSettings
    trainer: settings.TrainerSettings | None


def make_plan(composed: ComposedConfig, spec: StudySpec | None = None) -> Plan:
    """Check the whole config of a study without starting a process or writing a file.

    Args:
        composed: Config of the study.
        spec: Specification of the study; None takes that of the config.

    Raises:
        SpecError: A value cannot be used.
    """
    config = composed.config
    spec = sections.read_study(config) if spec is None else spec
    check_spec(spec)
    bus = sections.read_bus(config)
    check_reachable(bus.endpoint, guarded=bus.keys is not None, insecure=bus.insecure)
    storage = sections.read_section(config, settings.StorageSettings)
    check_url(storage.url)
    for type_ in settings.SECTIONS.values():
        if type_ is not settings.TrainerSettings:
            sections.read_section(config, type_)
    sections.read_callbacks(config)
    build_notifiers(config)
    if not sections.read_section(config, settings.LauncherSettings).worker:
        return Plan(composed, spec, bus, storage, None)
    worker = sections.read_section(config, settings.WorkerSettings)
    gpus.devices(worker.gpus, worker.gpus_per_trial, worker.slots)
    return Plan(composed, spec, bus, storage, sections.read_trainer(config))


def run_study(plan: Plan, console: Console) -> int:
    """Run a study to its end and return the exit code.

    Raises:
        TrialbusError: The config is wrong, or a service cannot be had.
    """
    try:
        return exit_codes.for_study(launch_study(plan, console))
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def launch_study(plan: Plan, console: Console, *, report: bool = True) -> events.StudyFinished:
    """Run a study to its end and return the event that ended the study.

    Args:
        plan: Checked study.
        console: Console on which progress is shown.
        report: Whether a reporter is started, and its report waited for.

    Raises:
        TrialbusError: The config is wrong, or a service cannot be had.
        KeyboardInterrupt: The user interrupted; everything that was started has ended.
    """
    spec, composed = plan.spec, plan.composed
    if report:
        reporter = sections.read_section(composed.config, settings.ReporterSettings)
        paths.make_directory(Path(reporter.dir), "report.dir")
    paths.make_directory(plan.bus.logs, "bus.dir")
    submitted = events.StudySubmitted(
        study=spec.name,
        spec=spec,
        submission=uuid.uuid4().hex,
        origin=collect_origin(composed.config, ["trialbus", "study", *composed.arguments]),
    )
    with Services(
        plan.bus,
        hide_password(plan.storage.url),
        spec.name,
        composed.arguments,
        console,
        worker=plan.trainer is not None,
        reporter=report,
    ) as services:
        services.start()
        return _submit(submitted, services, console, report=report)


def check_spec(spec: StudySpec) -> None:
    """Check the sampler, pruner, aggregations and constraints of a study before anything starts.

    Raises:
        SpecError: A name or an argument of them is unknown or cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    build_sampler(spec)
    build_pruner(spec.pruner)
    Judge(spec)
    problem = find_warm_up_problem(spec)
    if problem is not None:
        logger.warning("%s", problem)


def _submit(
    submitted: events.StudySubmitted, services: Services, console: Console, *, report: bool
) -> events.StudyFinished:
    """Submit a study, show the progress of its trials, and return the event that ended it."""
    spec = submitted.spec
    began = time.monotonic()
    view = StudyView(spec.name)
    history = read_histories(services.link).get(spec.name)
    start = "now" if history is None else history.start
    with (
        subscribe(study=spec.name, start=start, link=services.link) as inbox,
        Publisher(link=services.link) as publisher,
    ):
        inbox.wait_ready()
        if history is not None:
            _replay(history, inbox, view)
        publisher.publish(submitted)
        finished: events.StudyFinished | None = None
        try:
            with TerminalView(view, console=console) as terminal:
                finished = _follow(inbox, view, terminal, services, submitted.submission)
            page = _await_report(inbox, services) if report else None
        except KeyboardInterrupt:
            if finished is None:
                console.print("interrupted; the same command resumes the study", style="yellow")
                raise
            page = None
    print_summary(
        console,
        finished,
        metrics=spec.metrics,
        directions=spec.directions,
        wall_s=time.monotonic() - began,
        report=page,
    )
    return finished


def _replay(history: History, inbox: Subscriber[events.AnyEvent], view: StudyView) -> None:
    """Apply the earlier runs of a study to a view, which then shows the best value so far."""
    for event in history.before:
        view.apply(event)
    for record in inbox.read_to(None):
        with contextlib.suppress(msgspec.DecodeError):
            view.apply(record.event)
    view.take_notes()  # drops the notes about old events


def _follow(
    inbox: Subscriber[events.AnyEvent],
    view: StudyView,
    terminal: TerminalView,
    services: Services,
    submission: str,
) -> events.StudyFinished:
    """Show the progress of a study until the study has ended."""
    is_started = False
    while True:
        event = inbox.next(_TICK_S)
        services.supervise()
        if event is not None:
            view.apply(event)
        terminal.update()
        if isinstance(event, events.StudyStarted):
            is_started = is_started or event.submission == submission
        if isinstance(event, events.StudyFinished) and (
            is_started or event.submission == submission
        ):
            return event


def _await_report(inbox: Subscriber[events.AnyEvent], services: Services) -> Path | None:
    """Return the page of the report, once the reporter has written it; None if none comes."""
    deadline = time.monotonic() + _REPORT_S
    while time.monotonic() < deadline:
        event = inbox.next(_TICK_S)
        services.supervise()
        if isinstance(event, events.ReportReady):
            if event.error:
                logger.warning("no report: %s", event.error)
            return Path(event.paths[0]) if event.paths else None
    logger.warning("no report came within %g s; see the reporter's log", _REPORT_S)
    return None
