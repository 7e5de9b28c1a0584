"""`trialbus study`: submit a study, start the services that are not up, show it to its end."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from types import TracebackType

import optuna
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from trialbus import events
from trialbus.endpoint import is_local
from trialbus.errors import HubUnavailableError, SpecError
from trialbus.link import Link
from trialbus.publisher import Publisher
from trialbus.spec import StudySpec
from trialbus.status import hub_status
from trialbus.subscriber import Subscriber, subscribe
from trialbus_services import settings
from trialbus_services.children import Child
from trialbus_services.monitor.summary import print_summary
from trialbus_services.monitor.terminal import TerminalView
from trialbus_services.monitor.view import StudyView
from trialbus_services.optimizer.components import build_pruner, build_sampler
from trialbus_services.optimizer.objective import aggregation
from trialbus_services.optimizer.storage import check_url, shown

logger = logging.getLogger(__name__)

_KNOCK_S = 0.7  # a hub on this machine answers within milliseconds
_TICK_S = 0.25
_CHECK_S = 2.0
_QUIET_S = 3.0  # a session silent for longer is not counted on
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
    settings.trainer(config)
    console = Console()
    with Services(bus, shown(storage.url), spec.name, _task_overrides(), console) as services:
        services.start()
        return _follow(spec, services, console)


def check(spec: StudySpec) -> None:
    """Check what only Optuna knows of a specification, before anything is started.

    Raises:
        SpecError: A sampler, pruner, argument or aggregation does not exist.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    build_sampler(spec)
    build_pruner(spec.pruner)
    for objective in spec.objectives:
        aggregation(objective.aggregate, objective.direction)


class Services:
    """The services a study needs: those that are up already, and children for the others."""

    def __init__(
        self, bus: settings.Bus, storage: str, study: str, overrides: list[str], console: Console
    ) -> None:
        self._bus = bus
        self._storage = storage
        self._study = study
        self._overrides = overrides
        self._console = console
        self._children: dict[str, Child] = {}
        self._checked = 0.0
        self.link = Link(bus.endpoint)

    def __enter__(self) -> Services:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start what is missing.

        Raises:
            HubUnavailableError: There is no hub at an endpoint on another machine.
            TrialbusError: The optimizer that is up records elsewhere.
        """
        try:
            self.link.wait_connected(_KNOCK_S)
        except HubUnavailableError:
            if not is_local(self._bus.endpoint):
                self.link.wait_connected(self._bus.connect_s)
            self._spawn("hub")
            self._await_hub()
        self._start_missing()

    def tend(self) -> None:
        """Start again what ended since the last call. Cheap; call it often."""
        now = time.monotonic()
        if now - self._checked < _CHECK_S:
            return
        self._checked = now
        for child in self._children.values():
            child.check(self._say)
        if self.link.connected:
            try:
                self._start_missing()
            except HubUnavailableError:
                return  # it is being started again

    def stop(self) -> None:
        """End the children: first what uses the hub, and the hub at last."""
        self.link.close()
        names = [
            name for name in ("worker", "optimizer", "reporter", "hub") if name in self._children
        ]
        for name in names:
            # The optimizer takes in what the worker says at its end, and the hub outlives them all.
            self._children[name].terminate()
            if name in ("worker", "hub") or name == names[-1]:
                self._children[name].wait()
        for child in self._children.values():
            child.wait()

    def _await_hub(self) -> None:
        deadline = time.monotonic() + self._bus.connect_s
        while True:
            try:
                return self.link.wait_connected(_TICK_S)
            except HubUnavailableError:
                self._children["hub"].check(self._say)
                if time.monotonic() > deadline:
                    raise

    def _start_missing(self) -> None:
        sessions = [
            s
            for s in hub_status(self.link, self._bus.connect_s)["sessions"]
            if s["confirmed"] and s["silent_s"] < _QUIET_S + s["ttl_s"] / 3
        ]
        for optimizer in (s for s in sessions if s["kind"] == "optimizer"):
            if optimizer["info"].get("storage") != self._storage:
                raise SpecError(
                    "storage.url",
                    f"{self._storage!r} is not where the optimizer that is up records "
                    f"({optimizer['info'].get('storage')!r}); use that, or stop it",
                )
        up = {
            s["kind"]
            for s in sessions
            if s["kind"] != "worker" or s["info"].get("study") in ("", self._study)
        }
        for name in ("optimizer", "worker", "reporter"):
            if name not in up and name not in self._children:
                self._spawn(name)

    def _spawn(self, name: str) -> None:
        self._children[name] = Child(name, self._overrides, self._bus.logs / f"{name}.log")

    def _say(self, line: str) -> None:
        self._console.print(line, style="yellow", highlight=False, markup=False)


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
        wall_s=time.monotonic() - began,
        report=report,
    )
    return 0 if finished.reason != "failed" and finished.best_trials else 1


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
