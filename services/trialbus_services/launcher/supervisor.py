"""Services of a study: running services, and child processes for missing services."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.errors import HubUnavailableError, SpecError
from trialbus.protocol.endpoint import is_local, is_served
from trialbus.protocol.security import load_client_keys
from trialbus.protocol.status import InfoValue, SessionStatus
from trialbus_services.config import settings
from trialbus_services.config.composed_config import (
    ComposedConfig,
    replace_values,
    resolve_config,
)
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.process.child import Child
from trialbus_services.process.signals import hold_signals
from trialbus_services.worker.command_line import quote_for_hydra

_PROBE_S = 0.7  # a hub on this machine answers within milliseconds
_POLL_S = 0.25
_CHECK_INTERVAL_S = 2.0
_FINISHED_FIRST = ("worker", "optimizer")  # the optimizer records the worker's last events
_MAX_SILENCE_S = 3.0  # a session that is silent for longer may be dead


class Services:
    """Services that a study needs: running services, and child processes for missing services.

    Args:
        bus: Settings of the bus.
        storage: URL of the storage without the password, as the optimizer publishes it.
        study: Name of the study.
        composed: Config of the study, which services that are started get.
        service_values: Values of the config, by dotted key, that a service has in place of the
            study's, by the name of the service.
        console: Console on which starts and ends of services are shown.
        worker: Whether a worker is needed; without a worker, trainings request trials themselves.
        reporter: Whether a reporter is needed.
    """

    def __init__(
        self,
        bus: settings.BusSettings,
        storage: str,
        study: str,
        composed: ComposedConfig,
        console: Console,
        *,
        service_values: Mapping[str, Mapping[str, Any]] | None = None,
        worker: bool = True,
        reporter: bool = True,
    ) -> None:
        needed = {"optimizer": True, "worker": worker, "reporter": reporter}
        self._needed = [name for name, is_needed in needed.items() if is_needed]
        self._bus = bus
        self._storage = storage
        self._study = study
        self._arguments = composed.arguments
        self._config = resolve_config(composed.config)
        self._service_values = service_values or {}
        self._console = console
        self._later = [name for name in self._needed if name == "reporter"]
        self._children: dict[str, Child] = {}
        self._finished: dict[str, Child] = {}
        self._end: threading.Thread | None = None
        self._checked_at = 0.0
        self._waits: dict[str, InfoValue] = {}  # of the slots of each worker, by session
        self.link = Link(bus.endpoint)
        #: What changes when the log may have lost events; None before the hub was asked.
        self.log_state: tuple[object, ...] | None = None

    def __enter__(self) -> Services:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self.stop()
                break
            except KeyboardInterrupt as raised:  # no service may be left behind
                interrupt = raised
        if interrupt is not None:
            raise interrupt

    def start(self) -> None:
        """Start the services that are missing.

        Raises:
            HubUnavailableError: No hub answers, and none may be started: the endpoint is on another
                machine, or the environment has keys for a hub whose own key is not known here.
            TrialbusError: The running optimizer records in another storage, or a service cannot be
                started.
        """
        if self._may_start_hub and not self._has_hub():
            # Side by side: each service waits for the hub itself.
            for name in ("hub", *self._needed_first):
                self._spawn(name)
            self._await_hub()
        else:
            self.link.wait_connected(self._bus.connect_s)
        self._start_missing(self._needed_first, self._bus.connect_s)
        self._checked_at = time.monotonic()

    def start_reporter(self) -> None:
        """Start the reporter, if none runs: the first trial should not wait beside its imports."""
        later, self._later = self._later, []
        if later:
            with contextlib.suppress(HubUnavailableError):  # `supervise` starts the reporter then
                self._start_missing(later, _CHECK_INTERVAL_S)

    def finish(self) -> None:
        """Begin to end the services that a finished study does not need, but for the report."""
        self._needed = [name for name in self._needed if name == "reporter"]
        self._finished = {
            name: self._children.pop(name) for name in _FINISHED_FIRST if name in self._children
        }
        self._end = threading.Thread(target=_end_in_order, args=[list(self._finished.values())])
        self._end.start()

    def supervise(self) -> None:
        """Restart the services that have ended since the last call; cheap enough to call often."""
        now = time.monotonic()
        if now - self._checked_at < _CHECK_INTERVAL_S:
            return
        self._checked_at = now
        self._check_children()
        try:
            self._start_missing(self._needed, _CHECK_INTERVAL_S)
        except HubUnavailableError:
            # A hub of this launcher is restarted as a child; a hub of another may be gone for ever.
            if "hub" not in self._children and self._may_start_hub:
                self.print("the hub has ended; starting another")
                self._spawn("hub")

    def stop(self) -> None:
        """End the child processes, the hub last."""
        self.link.close()
        if self._end is not None:
            self._end.join()
        # The optimizer records the last events of the worker, and all services need the hub.
        for names in (("worker",), ("optimizer", "reporter"), ("hub",)):
            children = [self._children[name] for name in names if name in self._children]
            for child in children:
                child.terminate()
            for child in children:
                child.wait()

    def hurry(self) -> None:
        """End all child processes at once, but for the hub, while `stop` waits for them."""
        self.print("ending the services; this process ends when all of them have ended")
        for name, child in [*self._children.items(), *self._finished.items()]:
            if name != "hub":  # the others end faster with a hub
                child.terminate()

    def _has_hub(self) -> bool:
        if not is_served(self._bus.endpoint):
            return False
        try:
            self.link.wait_connected(_PROBE_S)
        except HubUnavailableError:
            return False
        return True

    @property
    def _needed_first(self) -> list[str]:
        return [name for name in self._needed if name not in self._later]

    @property
    def _may_start_hub(self) -> bool:
        has_foreign_keys = self._bus.keys is None and load_client_keys() is not None
        return is_local(self._bus.endpoint) and not has_foreign_keys

    def _await_hub(self) -> None:
        deadline = time.monotonic() + self._bus.connect_s
        while True:
            try:
                return self.link.wait_connected(_POLL_S)
            except HubUnavailableError:
                self._check_children()
                if time.monotonic() > deadline:
                    hub = self._children.get("hub")
                    raise (hub and hub.failure) or HubUnavailableError(
                        self.link.endpoint, self._bus.connect_s
                    ) from None

    def _check_children(self) -> None:
        for name, child in list(self._children.items()):
            if not child.supervise(self.print):
                del self._children[name]  # another process serves already

    def _start_missing(self, names: Iterable[str], timeout_s: float) -> None:
        status = hub_status(self.link, timeout_s)
        # Another process at the same endpoint may have an older copy of the log.
        lost_by_publishers = status.counters.get("lost", 0)
        self.log_state = (status.log_id, status.pid, status.lost, lost_by_publishers)
        sessions = [
            s for s in status.sessions if s.confirmed and s.silent_s < _MAX_SILENCE_S + s.ttl_s / 3
        ]
        for optimizer in (s for s in sessions if s.kind == "optimizer"):
            if optimizer.info.get("storage") != self._storage:
                raise SpecError(
                    "storage.url",
                    f"{self._storage!r} is not the storage of the running optimizer "
                    f"({optimizer.info.get('storage')!r}); use that storage, or stop the optimizer",
                )
        self._print_waits(sessions)
        running = {
            s.kind
            for s in sessions
            if s.kind != "worker" or s.info.get("study") in ("", self._study)
        }
        for name in names:
            if name not in running and name not in self._children:
                self._spawn(name)

    def _print_waits(self, sessions: Iterable[SessionStatus]) -> None:
        """Print what the slots of this study's workers wait for, when that has changed."""
        for worker in sessions:
            if worker.kind == "worker" and worker.info.get("study") == self._study:
                waits = worker.info.get("waits", "")
                if waits and waits != self._waits.get(worker.session):
                    self.print(f"worker {worker.name}: {waits}")
                self._waits[worker.session] = waits

    def _spawn(self, name: str) -> None:
        values = self._service_values.get(name, {})
        arguments = [
            *self._arguments,
            *(f"{key}={quote_for_hydra(value)}" for key, value in values.items()),
        ]
        config = None if self._config is None else replace_values(self._config, values)
        log = self._bus.logs / f"{name}.log"
        with hold_signals():  # a Ctrl-C in between would leave a service that nobody stops
            self._children[name] = Child(
                name, arguments, mask_secrets(arguments), log, config=config
            )

    def print(self, line: str) -> None:
        """Show a line about the services to the user."""
        self._console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _end_in_order(children: Iterable[Child]) -> None:
    for child in children:
        child.terminate()
        child.wait()
