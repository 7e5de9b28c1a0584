"""Services of a study: those that are up, and child processes for the others."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.errors import HubUnavailableError, SpecError
from trialbus.protocol.endpoint import is_local
from trialbus_services.config import settings
from trialbus_services.process.child import Child

_PROBE_S = 0.7  # a hub on this machine answers within milliseconds
_TICK_S = 0.25
_CHECK_S = 2.0
_QUIET_S = 3.0  # a session silent for longer is not counted on


class Services:
    """Services that a study needs: those that are up already, and child processes for the others.

    Args:
        bus: Settings of the bus.
        storage: URL of the storage as the optimizer shows it, without its password.
        study: Name of the study.
        overrides: Arguments with which a child composes the same config.
        console: Console on which starts and ends of services are shown.
        worker: Whether a worker is needed; else trainings ask for their trials themselves.
        reporter: Whether a reporter is needed.
    """

    def __init__(
        self,
        bus: settings.BusSettings,
        storage: str,
        study: str,
        overrides: list[str],
        console: Console,
        *,
        worker: bool = True,
        reporter: bool = True,
    ) -> None:
        needed = {"optimizer": True, "worker": worker, "reporter": reporter}
        self._needed = [name for name, is_needed in needed.items() if is_needed]
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
        """Start the services that are not up.

        Raises:
            HubUnavailableError: There is no hub at an endpoint on another machine.
            TrialbusError: The optimizer that is up records in another storage.
        """
        try:
            self.link.wait_connected(_PROBE_S)
        except HubUnavailableError:
            if not is_local(self._bus.endpoint):
                self.link.wait_connected(self._bus.connect_s)
            self._spawn("hub")
            self._await_hub()
        self._start_missing(self._bus.connect_s)

    def supervise(self) -> None:
        """Start the services again that ended since the last call; cheap enough to call often."""
        now = time.monotonic()
        if now - self._checked < _CHECK_S:
            return
        self._checked = now
        self._check_children()
        try:
            self._start_missing(_CHECK_S)
        except HubUnavailableError:
            # Ours is started again when it ends. One of another launcher may be gone for good.
            if "hub" not in self._children and is_local(self._bus.endpoint):
                self._print("the hub is gone; starting one")
                self._spawn("hub")

    def stop(self) -> None:
        """End the child processes, and the hub as the last one."""
        self.link.close()
        # The optimizer records what the worker publishes at its end; all of them need the hub.
        for names in (("worker",), ("optimizer", "reporter"), ("hub",)):
            ending = [self._children[name] for name in names if name in self._children]
            for child in ending:
                child.terminate()
            for child in ending:
                child.wait()

    def _await_hub(self) -> None:
        deadline = time.monotonic() + self._bus.connect_s
        while True:
            try:
                return self.link.wait_connected(_TICK_S)
            except HubUnavailableError:
                self._check_children()
                if time.monotonic() > deadline:
                    raise

    def _check_children(self) -> None:
        for name, child in list(self._children.items()):
            if not child.check(self._print):
                del self._children[name]  # another one serves already

    def _start_missing(self, timeout_s: float) -> None:
        sessions = [
            s
            for s in hub_status(self.link, timeout_s).sessions
            if s.confirmed and s.silent_s < _QUIET_S + s.ttl_s / 3
        ]
        for optimizer in (s for s in sessions if s.kind == "optimizer"):
            if optimizer.info.get("storage") != self._storage:
                raise SpecError(
                    "storage.url",
                    f"{self._storage!r} is not where the optimizer that is up records "
                    f"({optimizer.info.get('storage')!r}); use that, or stop it",
                )
        up = {
            s.kind
            for s in sessions
            if s.kind != "worker" or s.info.get("study") in ("", self._study)
        }
        for name in self._needed:
            if name not in up and name not in self._children:
                self._spawn(name)

    def _spawn(self, name: str) -> None:
        self._children[name] = Child(name, self._overrides, self._bus.logs / f"{name}.log")

    def _print(self, line: str) -> None:
        self._console.print(line, style="yellow", highlight=False, markup=False)
