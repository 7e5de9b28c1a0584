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
from trialbus_services.monitor.summary import print_summary
from trialbus_services.monitor.terminal import TerminalView
from trialbus_services.monitor.view import StudyView
from trialbus_services.optimizer.components import build_pruner, build_sampler
from trialbus_services.optimizer.outcome import Judge
from trialbus_services.optimizer.pruning import warm_up
from trialbus_services.optimizer.storage import check_url, shown
from trialbus_services.supervisor import Services
from trialbus_services.worker import gpus

logger = logging.getLogger(__name__)

_TICK_S = 0.25
_REPORT_S = 120.0
_INTERRUPTED = 130


def run(config: DictConfig, spec: StudySpec, overrides: list[str], console: Console) -> int:
    """Run a study to its end and return the exit code.

    Args:
        config: What services are configured with.
        spec: The study.
        overrides: Arguments that make another command compose the same config.
        console: Takes what happens.

    Raises:
        TrialbusError: The config is wrong, or a service cannot be had.
    """
    try:
        finished = launch(config, spec, overrides, console)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0 if finished.reason != "failed" and finished.best_trials else 1


def launch(
    config: DictConfig,
    spec: StudySpec,
    overrides: list[str],
    console: Console,
    *,
    report: bool = True,
) -> events.StudyFinished:
    """Run a study to its end and return how it ended, see `run`. Without `report` there is none.

    Raises:
        TrialbusError: As `run` does.
        KeyboardInterrupt: It was interrupted; everything that was started has ended.
    """
    check(spec)
    bus = settings.bus(config)
    storage = settings.section(config, "storage", settings.Storage)
    check_url(storage.url)
    worker = settings.section(config, "worker", settings.Worker)
    if worker.slots:
        settings.trainer(config)
        gpus.devices(worker.gpus, worker.gpus_per_trial, worker.slots)
    with Services(
        bus,
        shown(storage.url),
        spec.name,
        overrides,
        console,
        worker=worker.slots > 0,
        reporter=report,
    ) as services:
        services.start()
        return _follow(spec, services, console, awaited=report)


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
    spec: StudySpec, services: Services, console: Console, *, awaited: bool
) -> events.StudyFinished:
    """Submit the study, show what happens, and return its end."""
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


def task_overrides() -> list[str]:
    """Return the arguments that make another command compose the same config."""
    hydra = HydraConfig.get()
    folders = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    return [*(f"--config-dir={folder}" for folder in folders), *hydra.overrides.task]
