"""HubProcess: the real hub on a simulated socket, clock and disk, which dies and comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from simulation.disk import Disk
from simulation.network import ENDPOINT, Network, SimulatedSocket
from simulation.world import Crash, Stepper, World
from trialbus.errors import LogError
from trialbus.hub.hub import Hub


class HubProcess:
    """A hub that is started, runs turn by turn, crashes and is started again.

    Args:
        world: The world.
        network: The network that the hub listens on.
        directory: Folder of the log.
        after_turn: Called after every turn, also one that was cut off by a crash.
        hub_class: The hub; a control has another.
        keep_finished_s: See `Hub`.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        directory: Path,
        *,
        after_turn: Callable[[], object],
        hub_class: type[Hub] = Hub,
        keep_finished_s: float | None = None,
    ) -> None:
        self.disk = Disk(world)
        self.hub: Hub | None = None
        self._world = world
        self._network = network
        self._directory = directory
        self._after_turn = after_turn
        self._hub_class = hub_class
        self._keep_finished_s = keep_finished_s
        self.stepper = Stepper(world, self._step)
        self.start()

    def start(self) -> None:
        """Start a hub on the log; a start that fails is tried again."""
        if self.hub is not None:
            return
        self.disk.recover()
        socket = SimulatedSocket(self._network, self.stepper, self.disk.count_operation)
        try:
            self.hub = self._hub_class(
                ENDPOINT,
                self._directory,
                sync="normal",
                keep_finished_s=self._keep_finished_s,
                open_socket=socket.open,
                connect=self.disk.connect,
                clock=self._world.clock,
                wall_clock=self._world.wall_clock,
            )
        except (LogError, sqlite3.OperationalError):
            self._world.note("hub cannot start")
            self._world.call_in(self._world.seconds(0.1, 2.0), self.start)
            return
        self._world.note(f"hub starts at {self.hub.log.end}")
        self.stepper.wake(self._world.now)

    def crash(self, down_s: float) -> None:
        """Let the process die between two turns."""
        hub, self.hub = self.hub, None
        if hub is not None:
            self.disk.is_dead = True
            hub.close()
            self._world.call_in(down_s, self.start)

    def _step(self) -> None:
        hub = self.hub
        if hub is None:
            return
        try:
            hub.turn()
        except Crash:
            self.crash(self._world.seconds(0.0, 3.0))
        self._after_turn()
        if self.hub is not None and hub.due != float("inf"):
            self.stepper.wake(hub.due + 0.001)
