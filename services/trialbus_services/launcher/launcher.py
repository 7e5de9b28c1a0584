"""`trialbus study`: submit a study, start the services that are not up, show it to its end."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import optuna
from rich.console import Console

from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.messages import events
from trialbus.protocol.endpoint import check_reachable
from trialbus.study.spec import StudySpec
from trialbus_services.config import sections, settings
from trialbus_services.config.composing import Composed
from trialbus_services.launcher.provenance import origin
from trialbus_services.launcher.supervisor import Services
from trialbus_services.notify.factory import build_notifiers
from trialbus_services.optimizer.outcome import Judge
from trialbus_services.optimizer.pruning import warm_up
from trialbus_services.optimizer.registry import build_pruner, build_sampler
from trialbus_services.optimizer.storage import check_url, shown
from trialbus_services.process import exit_codes, gpus
from trialbus_services.views.study_view import StudyView
from trialbus_services.views.summary import print_summary
from trialbus_services.views.terminal import TerminalView

logger = logging.getLogger(__name__)

_TICK_S = 0.25
_REPORT_S = 120.0


@dataclass(frozen=True)
class Plan:
    """A study that is ready to run: its config is checked as far as that can be done from here.

    Attributes:
        found: The config, and the arguments that make a service compose the same.
        spec: The study.
        bus: Its bus.
        storage: Where it is recorded.
        trainer: What a worker here runs; None where trials run elsewhere.
    """

    found: Composed
    spec: StudySpec
    bus: settings.BusSettings
    storage: settings.StorageSettings
    trainer: settings.TrainerSettings | None


def plan(found: Composed, spec: StudySpec | None = None) -> Plan:
    """Check the whole config of a study. Nothing is started, and no file is made.

    Args:
        found: The config.
        spec: The study; None takes that of the config.

    Raises:
        SpecError: A value cannot be used.
    """
    config = found.config
    spec = sections.read_study(config) if spec is None else spec
    check(spec)
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
        return Plan(found, spec, bus, storage, None)
    worker = sections.read_section(config, settings.WorkerSettings)
    gpus.devices(worker.gpus, worker.gpus_per_trial, worker.slots)
    return Plan(found, spec, bus, storage, sections.read_trainer(config))


def run(planned: Plan, console: Console) -> int:
    """Run a study to its end and return the exit code.

    Raises:
        TrialbusError: The config is wrong, or a service cannot be had.
    """
    try:
        return exit_codes.for_study(launch(planned, console))
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def launch(planned: Plan, console: Console, *, report: bool = True) -> events.StudyFinished:
    """Run a study to its end and return how it ended, see `run`. Without `report` there is none.

    Raises:
        TrialbusError: As `run` does.
        KeyboardInterrupt: It was interrupted; everything that was started has ended.
    """
    found, spec = planned.found, planned.spec
    submitted = events.StudySubmitted(
        study=spec.name,
        spec=spec,
        submission=uuid.uuid4().hex,
        origin=origin(found.config, ["trialbus", "study", *found.arguments]),
    )
    with Services(
        planned.bus,
        shown(planned.storage.url),
        spec.name,
        found.arguments,
        console,
        worker=planned.trainer is not None,
        reporter=report,
    ) as services:
        services.start()
        return _follow(submitted, services, console, awaited=report)


def check(spec: StudySpec) -> None:
    """Check what only Optuna knows of a specification, before anything is started.

    Raises:
        SpecError: A sampler, pruner, argument, aggregation or constraint is none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    build_sampler(spec)
    build_pruner(spec.pruner)
    Judge(spec)
    doubt = warm_up.doubt(spec)
    if doubt is not None:
        logger.warning("%s", doubt)


def _follow(
    submitted: events.StudySubmitted, services: Services, console: Console, *, awaited: bool
) -> events.StudyFinished:
    """Submit the study, show what happens, and return its end."""
    spec = submitted.spec
    began = time.monotonic()
    with (
        subscribe(study=spec.name, link=services.link) as inbox,
        Publisher(link=services.link) as publisher,
    ):
        inbox.wait_ready()
        publisher.publish(submitted)
        view = StudyView(spec.name)
        finished: events.StudyFinished | None = None
        try:
            with TerminalView(view, console=console) as terminal:
                finished = _watch(inbox, view, terminal, services, submitted.submission)
            report = _await_report(inbox, services) if awaited else None
        except KeyboardInterrupt:
            if finished is None:
                console.print("interrupted; the same command resumes the study", style="yellow")
                raise
            report = None
    print_summary(
        console,
        finished,
        metrics=spec.metrics,
        directions=spec.directions,
        wall_s=time.monotonic() - began,
        report=report,
    )
    return finished


def _watch(
    inbox: Subscriber[events.AnyEvent],
    view: StudyView,
    terminal: TerminalView,
    services: Services,
    submission: str,
) -> events.StudyFinished:
    taken_up = False
    while True:
        event = inbox.next(_TICK_S)
        services.tend()
        if event is not None:
            view.apply(event)
        terminal.update()
        if isinstance(event, events.StudyStarted):
            taken_up = taken_up or event.submission == submission
        if isinstance(event, events.StudyFinished) and (taken_up or event.submission == submission):
            return event


def _await_report(inbox: Subscriber[events.AnyEvent], services: Services) -> Path | None:
    deadline = time.monotonic() + _REPORT_S
    while time.monotonic() < deadline:
        event = inbox.next(_TICK_S)
        services.tend()
        if isinstance(event, events.ReportReady):
            if event.error:
                logger.warning("no report: %s", event.error)
            return Path(event.paths[0]) if event.paths else None
    logger.warning("no report came within %g s; see the reporter's log", _REPORT_S)
    return None
