"""Launching a study: start missing services, submit the study, show the progress of trials."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import optuna
from rich.console import Console

from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import LogResetError
from trialbus.messages import events
from trialbus.protocol.endpoint import check_reachable
from trialbus.study.allowed_modules import find_targets
from trialbus.study.spec import StudySpec
from trialbus_services.config import sections, settings
from trialbus_services.config.composed_config import ComposedConfig
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.launcher.interruption import Interruption
from trialbus_services.launcher.provenance import collect_origin
from trialbus_services.launcher.submission import Submission
from trialbus_services.launcher.supervisor import Services
from trialbus_services.notify.factory import build_notifiers
from trialbus_services.optimizer import allowed_modules
from trialbus_services.optimizer.allowed_modules import AllowedModules, find_class_paths
from trialbus_services.optimizer.enqueuing import check_enqueued
from trialbus_services.optimizer.outcome import Judge
from trialbus_services.optimizer.pruning.warm_up import find_warm_up_problem
from trialbus_services.optimizer.registry import build_pruner, build_sampler
from trialbus_services.optimizer.sampling.coverage import check_points
from trialbus_services.optimizer.storage import check_url, may_exist
from trialbus_services.process import exit_codes, gpus, paths
from trialbus_services.views.history import History, read_histories
from trialbus_services.views.study_view import StudyView
from trialbus_services.views.summary import print_report, print_summary
from trialbus_services.views.terminal_view import TerminalView
from trialbus_services.worker.metrics_check import check_metrics
from trialbus_services.worker.params_arrival import find_arrival_problem
from trialbus_services.worker.params_check import check_params
from trialbus_services.worker.placeholders import check_placeholders

logger = logging.getLogger(__name__)

_POLL_S = 0.25
_REPORT_TIMEOUT_S = 120.0

#: Called with each event of a study, and with None while no event comes; an exception ends the
#: launch.
Follow: TypeAlias = Callable[[events.AnyEvent | None], object]


#: What is printed at an interruption.
_NOT_STARTED = "interrupted before the study started; the same command starts the study"
_RESUMABLE = "interrupted; the same command resumes the study"

#: Sections of a config that a specification takes the place of, for `compose_config`.
SPEC_SECTIONS = ("study", "sampler", "pruner")


@dataclass(frozen=True)
class Plan:
    """A study that is ready to run, with a checked config."""

    composed: ComposedConfig
    """Config, and the arguments with which a service composes the same config."""
    spec: StudySpec
    """Specification of the study."""
    bus: settings.BusSettings
    """Settings of the bus."""
    storage: settings.StorageSettings
    """Settings of the storage that records the study."""
    trainer: settings.TrainerSettings | None
    """Program or function of the worker that is started here; None if trials run elsewhere."""


def make_plan(composed: ComposedConfig, spec: StudySpec | None = None) -> Plan:
    """Check the whole config of a study without starting a process or leaving a file.

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
    if may_exist(storage.url):
        # Imported for such a storage alone: what reads a database takes long to import.
        from trialbus_services.launcher.storage_check import check_recorded_study

        check_recorded_study(storage.url, spec)
    for type_ in settings.SECTIONS.values():
        if type_ is not settings.TrainerSettings:
            sections.read_section(config, type_)
    AllowedModules(sections.read_section(config, settings.OptimizerSettings).allowed_modules)
    sections.read_callbacks(config)
    build_notifiers(config)
    reporter = sections.read_section(config, settings.ReporterSettings)
    paths.check_writable(Path(bus.dir), "bus.dir")
    paths.check_writable(Path(reporter.dir), "report.dir")
    if not sections.read_section(config, settings.LauncherSettings).worker:
        return Plan(composed, spec, bus, storage, None)
    worker = sections.read_section(config, settings.WorkerSettings)
    gpus.assign_gpus(worker.gpus, worker.gpus_per_trial, worker.slots)
    trainer = sections.read_trainer(config)
    if trainer.function is None:
        check_params(trainer.params_as, spec)
        check_placeholders("trainer.command", trainer.argv, spec)
        check_placeholders("trainer.cwd", [trainer.cwd or ""], spec)
        places = [source.file or source.tensorboard or "" for source in trainer.metric_sources]
        check_placeholders("trainer.metrics", places, spec)
        check_metrics(trainer.metric_sources, spec)
        problem = find_arrival_problem(trainer, spec)
        if problem is not None:
            logger.warning("%s", problem)
    return Plan(composed, spec, bus, storage, trainer)


def run_study(plan: Plan, console: Console) -> int:
    """Run a study until the study has ended, and return the exit code.

    Raises:
        TrialbusError: The config is wrong, or a service cannot be started or reached.
    """
    try:
        signals = (signal.SIGINT, signal.SIGTERM)
        return exit_codes.get_study_code(launch_study(plan, console, signals=signals))
    except KeyboardInterrupt as error:
        number: int = error.args[0] if error.args else signal.SIGINT
        return 128 + number


def launch_study(
    plan: Plan,
    console: Console,
    *,
    report: bool = True,
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
    follow: Follow | None = None,
    command: Sequence[str] | None = None,
) -> events.StudyFinished:
    """Run a study until the study has ended, and return the `study_finished` event.

    Args:
        plan: Checked study.
        console: Console on which progress is shown.
        report: Whether to start a reporter and wait for the report.
        signals: Signals that interrupt the study as Ctrl-C does.
        follow: Called with each event of the study, and with None while no event comes; an error
            of the call ends all services that were started and is raised, and the study can be
            resumed.
        command: Command line of this program, as the study records it; None for `trialbus study`.

    Raises:
        TrialbusError: The config is wrong, or a service cannot be started or reached.
        KeyboardInterrupt: The user interrupted; all services that were started have ended.
    """
    spec, composed = plan.spec, plan.composed
    submitted = events.StudySubmitted(
        study=spec.name,
        spec=spec,
        submission=uuid.uuid4().hex,
        origin=collect_origin(
            composed.config,
            command or ["trialbus", "study", *composed.arguments],
            spec=None if sections.read_study(composed.config) == spec else spec,
        ),
    )
    _check_limits(plan.storage.url, spec, submitted.origin)
    with (
        Interruption(signals) as interruption,
        Services(
            plan.bus,
            mask_secrets(plan.storage.url),
            spec.name,
            composed,
            console,
            service_values=allow_classes(plan),
            worker=plan.trainer is not None,
            reporter=report,
        ) as services,
    ):
        interruption.hurry = services.hurry
        console.print(f"{spec.name}: starting", style="dim", highlight=False, markup=False)
        try:
            services.start()
        except KeyboardInterrupt:
            services.print(_NOT_STARTED)
            raise
        return _submit(submitted, services, console, report=report, follow=follow)


def _check_limits(url: str, spec: StudySpec, origin: Mapping[str, Any]) -> None:
    """Check that the storage can hold a study, see `check_limits`."""
    if not url.startswith(("memory:", "journal:", "sqlite:")):  # these hold every study
        from trialbus_services.optimizer.storage_limits import check_limits

        check_limits(url, spec, origin)


def allow_classes(plan: Plan) -> dict[str, dict[str, list[str]]]:
    """Return values that let services import the classes that the user's study names.

    Returns:
        Values by the dotted key of the config, by the name of the service.
    """
    config, spec = plan.composed.config, plan.spec
    optimizer = sections.read_section(config, settings.OptimizerSettings).allowed_modules
    worker = sections.read_section(config, settings.WorkerSettings).allowed_modules
    named = {
        "optimizer": (allowed_modules.KEY, optimizer, find_class_paths(spec)),
        "worker": (settings.WORKER_MODULES_KEY, worker, sorted(set(find_targets(spec.config)))),
    }
    return {
        service: {key: [*allowed, *paths]}
        for service, (key, allowed, paths) in named.items()
        if paths
    }


def check_spec(spec: StudySpec) -> None:
    """Check the sampler, pruner, aggregations and constraints of a study before anything starts.

    Raises:
        SpecError: A sampler, pruner, aggregation or constraint is unknown or cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    build_sampler(spec)
    build_pruner(spec.pruner)
    Judge(spec)
    check_enqueued(spec)
    check_points(spec)
    problem = find_warm_up_problem(spec)
    if problem is not None:
        logger.warning("%s", problem)


def _submit(
    submitted: events.StudySubmitted,
    services: Services,
    console: Console,
    *,
    report: bool,
    follow: Follow | None,
) -> events.StudyFinished:
    """Submit a study, show the progress of trials, and return the `study_finished` event."""
    view = StudyView(submitted.study)
    with Publisher(link=services.link) as publisher:
        submission = Submission(submitted, publisher, services)
        while True:
            try:
                return _await_end(submission, view, services, console, report=report, follow=follow)
            except LogResetError as error:
                services.print(f"{error}; the study is submitted again")


def _await_end(
    submission: Submission,
    view: StudyView,
    services: Services,
    console: Console,
    *,
    report: bool,
    follow: Follow | None,
) -> events.StudyFinished:
    """Submit a study, print the summary and the report's path at the end, and return the end.

    Raises:
        LogResetError: The hub serves another log than before.
    """
    study = submission.event.study
    with contextlib.ExitStack() as stack:
        try:
            history = read_histories(services.link).get(study)
            start = "now" if history is None else history.start
            subscriber = stack.enter_context(
                subscribe(study=study, start=start, link=services.link)
            )
            subscriber.wait_ready()
            if history is not None:
                _replay(history, subscriber, view)
            submission.publish()
            with TerminalView(view, console=console) as terminal:
                finished = _follow(subscriber, view, terminal, services, submission, follow=follow)
        except KeyboardInterrupt:
            has_begun = view.state == "running" or view.n_done > 0
            services.print(_RESUMABLE if has_begun else _NOT_STARTED)
            raise
        services.finish()
        spec = submission.event.spec
        print_summary(
            console,
            finished,
            metrics=spec.metrics,
            directions=spec.directions,
            wall_s=view.elapsed_s,
        )
        # A log that is lost now has no effect on the study any more.
        with contextlib.suppress(KeyboardInterrupt, LogResetError):
            page = _await_report(subscriber, services) if report else None
            if page is not None:
                print_report(console, page)
        return finished


def _replay(history: History, subscriber: Subscriber[events.AnyEvent], view: StudyView) -> None:
    """Apply the earlier runs of a study to a view, which then shows the best value so far."""
    for event in history.before:
        view.apply(event)
    for record in subscriber.read_to(None):
        with contextlib.suppress(msgspec.DecodeError):
            view.apply(record.event)
    view.take_notes()  # drops the notes about old events


def _follow(
    subscriber: Subscriber[events.AnyEvent],
    view: StudyView,
    terminal: TerminalView,
    services: Services,
    submission: Submission,
    *,
    follow: Follow | None,
) -> events.StudyFinished:
    """Show the progress of a study until the study has ended."""
    is_started = False
    id_ = submission.event.submission
    while True:
        event = subscriber.next(_POLL_S)
        services.supervise()
        if submission.renew():
            services.print("the log has lost the study's submission; the study is submitted again")
        if event is not None:
            view.apply(event)
        terminal.update()
        if follow is not None:
            follow(event)
        if isinstance(event, events.TrialStarted | events.StudyFinished):
            services.start_reporter()
        if isinstance(event, events.StudyStarted):
            is_started = is_started or event.submission == id_
        if isinstance(event, events.StudyFinished) and (is_started or event.submission == id_):
            return event


def _await_report(subscriber: Subscriber[events.AnyEvent], services: Services) -> Path | None:
    """Wait until the reporter has written the report and return the page; None after a failure."""
    deadline = time.monotonic() + _REPORT_TIMEOUT_S
    while time.monotonic() < deadline:
        event = subscriber.next(_POLL_S)
        services.supervise()
        if isinstance(event, events.ReportReady):
            if event.error:
                logger.warning("no report: %s", event.error)
            return Path(event.paths[0]) if event.paths else None
    logger.warning("no report arrived within %g s; see the reporter's log", _REPORT_TIMEOUT_S)
    return None
