"""`trialbus study`: submit a study, start the services that are not up, show it to its end."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path

import optuna
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from trialbus import events
from trialbus.publisher import Publisher
from trialbus.spec import StudySpec
from trialbus.subscriber import Subscriber, subscribe
from trialbus_services import settings
from trialbus_services.monitor.summary import exit_code, print_summary
from trialbus_services.monitor.terminal import TerminalView
from trialbus_services.monitor.view import StudyView
from trialbus_services.notify.building import build_notifiers
from trialbus_services.optimizer.components import build_pruner, build_sampler
from trialbus_services.optimizer.outcome import Judge
from trialbus_services.optimizer.storage import check_url, shown
from trialbus_services.supervisor import Services

logger = logging.getLogger(__name__)

_TICK_S = 0.25
_REPORT_S = 120.0
_INTERRUPTED = 130


def run(config: DictConfig) -> int:
    """Run the study of a config to its end and return the exit code.

    Raises:
        TrialbusError: The config is wrong, or a service cannot be had.
    """
    spec = settings.study(config)
    check(spec)
    bus = settings.bus(config)
    storage = settings.section(config, "storage", settings.Storage)
    check_url(storage.url)
    build_notifiers(config)
    worker = settings.section(config, "worker", settings.Worker).slots > 0
    if worker:
        settings.trainer(config)
    console = Console()
    with Services(
        bus, shown(storage.url), spec.name, _task_overrides(), console, worker=worker
    ) as services:
        services.start()
        return _follow(spec, services, console)


def check(spec: StudySpec) -> None:
    """Check what only Optuna knows of a specification, before anything is started.

    Raises:
        SpecError: A sampler, pruner, argument, aggregation or constraint is none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    build_sampler(spec)
    build_pruner(spec.pruner)
    Judge(spec)


def _follow(spec: StudySpec, services: Services, console: Console) -> int:
    """Submit the study, show what happens, and return the exit code."""
    submission = uuid.uuid4().hex
    began = time.monotonic()
    with (
        subscribe(study=spec.name, link=services.link) as inbox,
        Publisher(link=services.link) as publisher,
    ):
        inbox.wait_ready()
        publisher.publish(events.StudySubmitted(study=spec.name, spec=spec, submission=submission))
        view = StudyView(spec.name)
        finished: events.StudyFinished | None = None
        try:
            with TerminalView(view, console=console) as terminal:
                finished = _watch(inbox, view, terminal, services, submission)
            report = _await_report(inbox, services)
        except KeyboardInterrupt:
            if finished is None:
                console.print("interrupted; the same command resumes the study", style="yellow")
                return _INTERRUPTED
            report = None
    print_summary(
        console,
        finished,
        metrics=spec.metrics,
        directions=spec.directions,
        wall_s=time.monotonic() - began,
        report=report,
    )
    return exit_code(finished)


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


def _task_overrides() -> list[str]:
    """Return the arguments that make another command compose the same config."""
    hydra = HydraConfig.get()
    folders = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    return [*(f"--config-dir={folder}" for folder in folders), *hydra.overrides.task]
