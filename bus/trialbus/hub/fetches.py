"""Fetches: the open fetches of all peers, which the hub answers in turn and within bounds."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable

from trialbus.hub.durable_names import DurableNames
from trialbus.hub.log import EventLog
from trialbus.hub.parked import Parked, ParkedFetches, estimate_size
from trialbus.hub.router import Router
from trialbus.messages.topics import is_pattern
from trialbus.protocol import frames, limits
from trialbus.protocol.frames import Record

_TURN_READING_S = 0.005


class Fetches:
    """Open fetches: new fetches in a queue for each peer, and parked fetches.

    Args:
        log: Log that the fetches read.
        router: Sends the answers.
        names: Decides who may read under a durable name.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        log: EventLog,
        router: Router,
        names: DurableNames,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._router = router
        self._names = names
        self._clock = clock
        self._new: dict[bytes, deque[frames.Fetch]] = {}
        self._new_size = 0  # estimated memory in bytes
        self._parked = ParkedFetches()

    @property
    def parked(self) -> int:
        """Number of fetches that wait for events."""
        return len(self._parked)

    @property
    def due(self) -> float:
        """Time at which `answer` has to be called if no event is published before."""
        if self._new:
            return 0.0
        return self._parked.next_deadline() or float("inf")

    def clear(self) -> None:
        """Remove all fetches after a disconnection of the peers, which will fetch again."""
        self._new.clear()
        self._new_size = 0
        self._parked = ParkedFetches()

    def take(self, peer: bytes, fetch: frames.Fetch) -> None:
        """Put a fetch into the queue of the peer, or refuse the fetch."""
        if not all(map(is_pattern, fetch.patterns)):
            reason = "patterns are not type/study/trial"
            self._router.refuse(peer, frames.BAD_FRAME, reason, fetch.request)
            return
        if len(self._new.get(peer, ())) + self._parked.count(peer) >= limits.OPEN_FETCHES:
            reason = f"more than {limits.OPEN_FETCHES} open fetches of one connection"
            self._router.refuse(peer, frames.TOO_MANY, reason, fetch.request)
            return
        size = estimate_size(fetch)
        if self._new_size + size > limits.OPEN_FETCHES_BYTES:
            reason = f"more than {limits.OPEN_FETCHES_BYTES} bytes of open fetches"
            self._router.refuse(peer, frames.TOO_MANY, reason, fetch.request)
            return
        self._new_size += size
        self._new.setdefault(peer, deque()).append(fetch)

    def deliver(self, records: Iterable[Record]) -> None:
        """Answer the parked fetches that wait for any of the records."""
        for parked in self._parked.take_matching(record.topic for record in records):
            self._answer(parked)

    def answer(self) -> None:
        """Answer a new fetch of each peer, for a bounded time, and all overdue fetches."""
        until = self._clock() + _TURN_READING_S
        for peer in list(self._new):
            queue = self._new.pop(peer)
            fetch = queue.popleft()
            self._new_size -= estimate_size(fetch)
            if queue:
                self._new[peer] = queue  # behind the other peers
            self._answer_new(peer, fetch)
            if self._clock() > until:
                break
        for parked in self._parked.take_overdue(self._clock()):
            following = max(parked.offset, self._log.end)
            self._send(parked.peer, parked.fetch.request, [], following, more=False)

    def _answer_new(self, peer: bytes, fetch: frames.Fetch) -> None:
        log = self._log
        offset = {frames.NOW: log.end, frames.EARLIEST: 0}.get(fetch.offset, fetch.offset)
        if fetch.name is not None:
            offset = log.durable.get(fetch.name, offset)
        try:
            if not log.covers(offset, is_trusted=self._router.role(peer) == "service"):
                reason = f"offset {offset} is not in 0..{log.end}"
                self._router.refuse(peer, frames.OUT_OF_RANGE, reason, fetch.request)
                return
            if fetch.name is not None:
                key, role = self._router.key_name(peer), self._router.role(peer)
                change, refusal = self._names.begin(fetch.name, fetch, offset, key, role)
                if refusal is not None:
                    self._router.refuse(peer, frames.CONFLICT, refusal, fetch.request)
                    return
                if change:
                    log.append(change)
        except sqlite3.Error as error:
            reason = f"the log cannot be written: {error}"
            self._router.refuse(peer, frames.NO_SPACE, reason, fetch.request)
            return
        if fetch.offset < 0 or fetch.name is not None:
            self._send(peer, fetch.request, [], offset, more=False)
            return
        wait_s = min(max(fetch.wait_ms, 0), limits.MAX_WAIT_MS) / 1000
        deadline = self._clock() + wait_s
        self._answer(Parked(peer, fetch, offset, deadline, frozenset(fetch.patterns)))

    def _answer(self, parked: Parked) -> None:
        """Send the records that a fetch can have now, and park the fetch while more may follow."""
        fetch = parked.fetch
        forbidden = self._router.forbids(parked.peer, fetch)  # since the fetch was parked
        if forbidden is not None:
            self._router.refuse(parked.peer, frames.FORBIDDEN, forbidden, fetch.request)
            return
        try:
            records, following = self._log.read(
                parked.offset,
                parked.patterns,
                max_events=min(fetch.max_events, limits.BATCH_EVENTS),
                max_bytes=limits.BATCH_BYTES,
            )
        except sqlite3.Error as error:
            reason = f"the log cannot be read: {error}"
            self._router.refuse(parked.peer, frames.NO_SPACE, reason, fetch.request)
            return
        is_open = following == self._log.end and fetch.wait_ms > 0
        if records or not is_open:
            parked.answered += 1
            is_open = is_open and parked.answered < fetch.answers
            is_open &= self._send(parked.peer, fetch.request, records, following, more=is_open)
        if is_open:
            parked.offset = following
            self._parked.park(parked)

    def _send(
        self, peer: bytes, request: int, records: list[Record], following: int, *, more: bool
    ) -> bool:
        self._router.counters["delivered"] += len(records)
        events = frames.Events(request, following, self._log.end, records, more)
        return self._router.send(peer, events)
