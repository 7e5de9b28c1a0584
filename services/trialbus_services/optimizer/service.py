"""Optimizer: the process that connects the optimizer's loop to the bus."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from optuna.storages import BaseStorage

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import replay
from trialbus.errors import TrialbusError
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.loop import OptimizerLoop
from trialbus_services.optimizer.reading import begin_reading
from trialbus_services.optimizer.sampling.suggester import Suggester
from trialbus_services.optimizer.session_check import SessionCheck
from trialbus_services.optimizer.status import to_info
from trialbus_services.optimizer.status_collector import StatusCollector
from trialbus_services.optimizer.steady_clock import SteadyClock
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.process.takeover import describe_process, end_dead_sessions

_NAME = "optimizer"
_TTL_S = 4.0
_TAKEOVER_S = 3 * _TTL_S
_TURN_S = 1.0
_INFORM_S = 2.0
_FLUSH_S = 5.0


class Optimizer:
    """Serves every study submitted on a bus, and records all studies in a storage.

    Args:
        endpoint: Address of the hub.
        storage: Storage that records the studies.
        storage_url: URL of the storage, which the status shows without the password.
        connect_s: Seconds to wait for the hub at start.
        ahead: Number of suggestions that each study keeps ready.
        record_every_s: Seconds between two batches that are recorded.
        max_points: Largest number of intermediate values of one trial that are recorded; None for
            all.
        allowed: Modules from which the classes of samplers and pruners may be imported; None for
            Optuna's and those of installed plugins.

    Raises:
        HubUnavailableError: No hub answered in time.
        HubRefusedError: Another optimizer serves this bus.
    """

    def __init__(
        self,
        endpoint: str,
        storage: BaseStorage,
        *,
        storage_url: str,
        connect_s: float = 10.0,
        ahead: int = 1,
        record_every_s: float = 0.25,
        max_points: int | None = None,
        allowed: AllowedModules | None = None,
    ) -> None:
        self._wake = threading.Event()
        write_behind = WriteBehind(
            storage,
            interval_s=record_every_s,
            max_points=max_points,
            on_written=self._wake.set,
        )
        collector = StatusCollector()
        self._informed_at = 0.0
        self._info: dict[str, str | float] = {
            "storage": mask_secrets(storage_url),
            **describe_process(),
        }
        self._link = Link(endpoint)
        try:
            self._link.wait_connected(connect_s)
            end_dead_sessions(self._link, "optimizer")
            self._presence = Presence(
                link=self._link,
                kind="optimizer",
                name=_NAME,
                ttl_s=_TTL_S,
                info=self._info,
                exclusive=True,
            )
            # An optimizer that died on another host counts as alive for the time-to-live.
            self._presence.wait_registered(_TAKEOVER_S)
            self._inbox, committed = begin_reading(self._link, connect_s)
            self._inbox.wake_on_arrival(self._wake.set)
        except BaseException:
            self._link.close()
            raise
        self._publisher = Publisher(link=self._link)
        self._loop = OptimizerLoop(
            BusClients(
                self._inbox,
                self._publisher,
                partial(replay, link=self._link),
                committed,
                SessionCheck(self._link),
            ),
            write_behind,
            start_sampler=partial(
                Suggester, ahead=ahead, latency=collector.sampling, on_ready=self._wake.set
            ),
            collector=collector,
            allowed=allowed,
            wall_clock=SteadyClock(),
        )

    def run(self, stopping: Callable[[], bool]) -> None:
        """Serve until `stopping`, which is called about once a second, returns true.

        Raises:
            TrialbusError: The hub declared this optimizer lost; another may have taken over.
        """
        try:
            self._loop.recover()
            while not stopping():
                self._wake.wait(_TURN_S)
                self._wake.clear()
                if self._loop.turn():
                    self._wake.set()
                self._inform()
                if self._presence.lost:
                    raise TrialbusError(
                        "the hub declared this optimizer lost (was it paused?); "
                        "start it again, nothing is lost"
                    )
        finally:
            self._loop.close(_FLUSH_S)
            self._publisher.close(_FLUSH_S)
            self._presence.close()
            self._inbox.close()
            self._link.close()

    def _inform(self) -> None:
        """Show the optimizer's status in the status of the hub."""
        now = time.monotonic()
        if now - self._informed_at >= _INFORM_S:
            self._informed_at = now
            self._presence.inform(self._info | to_info(self._loop.get_status()))
