"""Subscriber: reads the log from an offset on, live, at its own pace."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, overload

import msgspec

from trialbus.client.fetcher import Reader, Start
from trialbus.client.link import Link
from trialbus.errors import HubUnavailableError
from trialbus.messages import events
from trialbus.messages.topics import pattern
from trialbus.protocol.frames import Record

__all__ = ["Record", "Subscriber", "replay", "subscribe"]

_COMMIT_EVERY_S = 0.5
_LOOK_S = 30.0  # an idle subscriber learns this often how far the log has gone

E_co = TypeVar("E_co", bound=events.AnyEvent, covariant=True)
T = TypeVar("T", bound=events.Event)


class Subscriber(Generic[E_co]):
    """An iterator over events, also an async iterator and a context manager. Made by `subscribe`.

    Iterating never ends by itself: it waits for events that are still to come. A body that does
    not fit its type is skipped and counted in `unreadable`. Not for use by two threads at once.
    """

    def __init__(self, reader: Reader, link: Link, *, own_link: bool, autocommit: bool) -> None:
        self._reader = reader
        self._link = link
        self._own_link = own_link
        self._autocommit = autocommit
        self._batch: deque[Record] = deque()
        self._committed_at = time.monotonic()
        self._committed: int | None = None
        self.unreadable = 0  #: events whose body could not be decoded
        #: Offset after the last event taken; None before the first.
        self.offset: int | None = None

    def __enter__(self) -> Subscriber[E_co]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Subscriber[E_co]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[E_co]:
        while True:
            event = self.next(None)
            if event is not None:
                yield event

    async def __aiter__(self) -> AsyncIterator[E_co]:
        loop = asyncio.get_running_loop()
        while True:
            event = self._take()
            if event is not None:
                yield event
                continue
            arrived = asyncio.Event()
            self._reader.on_arrival = partial(loop.call_soon_threadsafe, arrived.set)
            try:
                if not self._reader.available:
                    await asyncio.wait_for(arrived.wait(), self._commit_in_s())
            except TimeoutError:
                continue
            finally:
                self._reader.on_arrival = None
            self._batch.extend(self._reader.take())

    def wake_on_arrival(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from another thread, when something arrives or the subscriber closes."""
        self._reader.on_arrival = wake

    @property
    def available(self) -> bool:
        """Whether `next` would return, or raise, at once."""
        return bool(self._batch) or self._reader.available

    @property
    def caught_up(self) -> bool:
        """Whether everything that was in the log when the hub last spoke has been taken."""
        return self._reader.position >= self._reader.log_end and not self.available

    def next(self, timeout_s: float | None = None) -> E_co | None:
        """Return the next event, or None if none comes within `timeout_s` seconds.

        Raises:
            LogResetError: The hub serves another log than before.
            HubRefusedError: The hub refuses the subscription.
            ClosedError: It was closed.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while (event := self._take()) is None:
            left = max(0.0, deadline - time.monotonic())
            batch = self._reader.wait(min(left, self._commit_in_s()))
            if not batch and left <= 0:
                return None
            self._batch.extend(batch)
        return event

    def records(self, timeout_s: float | None = None) -> list[Record]:
        """Return the next batch of undecoded events; empty if none comes in time.

        For services that commit together with what they wrote. Raises as `next` does.
        """
        records = list(self._batch) or self._reader.wait(timeout_s)
        self._batch.clear()
        if records:
            self.offset = records[-1].offset + 1
        return records

    def read_to(self, end: int | None, timeout_s: float = 10.0) -> Iterator[Record]:
        """Yield the records up to offset `end`, or to where the log ends now, and stop there.

        Raises:
            HubUnavailableError: The hub did not go on within `timeout_s` seconds.
        """
        self.wait_ready(timeout_s)
        reader = self._reader
        goal = reader.log_end if end is None else end
        while True:
            position = reader.position
            batch = reader.take()
            for record in batch:
                if record.offset >= goal:
                    return
                self.offset = record.offset + 1
                yield record
            if not batch and position >= goal:
                return
            if not batch and not reader.wait_moved(position, timeout_s):
                raise HubUnavailableError(self._link.endpoint, timeout_s)

    def wait_ready(self, timeout_s: float = 10.0) -> int:
        """Wait until the place to start from is settled and return it.

        What is published after this returned is not missed.

        Raises:
            HubUnavailableError: No hub answered in time.
        """
        offset = self._reader.wait_ready(timeout_s)
        if offset is None:
            raise HubUnavailableError(self._link.endpoint, timeout_s)
        if self.offset is None:
            self.offset = offset
        return offset

    def commit(self, offset: int | None = None, *, wait_s: float = 0.0) -> bool:
        """Keep, under the durable name, that everything before `offset` is dealt with.

        Args:
            offset: None means: everything taken so far.
            wait_s: Seconds to wait for the hub to have it on disk.

        Returns:
            Whether it is known to be on disk.
        """
        offset = self.offset if offset is None else offset
        if offset is None:
            return False
        self._committed_at = time.monotonic()
        self._committed = offset
        done = self._reader.commit(offset)
        self._link.wake()
        return done.wait(wait_s)

    def close(self) -> None:
        """Commit what was taken, where commits are automatic, and end."""
        if self._reader.closed:
            return
        if self._autocommit and self.offset is not None and self._link.connected:
            self.commit(wait_s=1.0)
        self._reader.on_close()
        self._link.detach(self._reader)
        if self._own_link:
            self._link.close()

    def _commit_in_s(self) -> float:
        """Return seconds until a commit is due, or might become so."""
        if not self._autocommit or self.offset == self._committed:
            return _LOOK_S
        return max(0.0, self._committed_at + _COMMIT_EVERY_S - time.monotonic())

    def _take(self) -> E_co | None:
        """Return the next event at hand. The one before it is dealt with by now."""
        if self._autocommit and not self._batch:
            # What did not match is dealt with, too: it holds nothing back.
            self.offset = self._reader.passed(self.offset)
        if self._commit_in_s() <= 0:
            self.commit()
        while self._batch:
            record = self._batch.popleft()
            self.offset = record.offset + 1
            try:
                return cast("E_co", record.event)  # the hub sends only what matches
            except msgspec.DecodeError:
                self.unreadable += 1
        return None


@overload
def subscribe(
    type_: type[T],
    /,
    *types: type[T],
    study: str | None = None,
    trial: int | None = None,
    start: Start = "now",
    name: str | None = None,
    autocommit: bool = True,
    endpoint: str | None = None,
    link: Link | None = None,
) -> Subscriber[T]: ...
@overload
def subscribe(
    *types: type[events.Event] | str,
    study: str | None = None,
    trial: int | None = None,
    start: Start = "now",
    name: str | None = None,
    autocommit: bool = True,
    endpoint: str | None = None,
    link: Link | None = None,
) -> Subscriber[events.AnyEvent]: ...
def subscribe(
    *types: type[events.Event] | str,
    study: str | None = None,
    trial: int | None = None,
    start: Start = "now",
    name: str | None = None,
    autocommit: bool = True,
    endpoint: str | None = None,
    link: Link | None = None,
) -> Subscriber[Any]:
    """Subscribe to events by type, study and trial.

    Args:
        types: Event classes, or their names; none means all.
        study: Only events of this study.
        trial: Only events of the trial with this number.
        start: `now`, `earliest`, or an offset.
        name: A durable name: the hub keeps how far it got, and the next subscriber of that
            name goes on from there, `start` counting only for the first. One at a time may use it.
        autocommit: With a name, commit every half second what the loop has come past. Turn it off
            to call `commit` yourself, after what you made of the events is safe.
        endpoint: Where the hub is; None takes `$TRIALBUS_ENDPOINT` or the default.
        link: A link to share, instead of an endpoint.

    Delivery:
        Every matching event in the order of the log, without gaps. After a crash, a durable
        name sees again what it had not committed.

    Example:
        >>> for event in subscribe(trialbus.EvaluationComplete, study="digits"):  # doctest: +SKIP
        ...     print(event.trial, event.step, event.metrics)
    """
    names = [t if isinstance(t, str) else str(t.__struct_config__.tag) for t in types]
    patterns = [pattern(name_, study, trial) for name_ in names] or [pattern(None, study, trial)]
    own_link = link is None
    link = Link(endpoint) if link is None else link
    reader = Reader(link, patterns, start, name)
    link.attach(reader)
    return Subscriber(reader, link, own_link=own_link, autocommit=autocommit and name is not None)


def replay(
    *types: type[events.Event] | str,
    study: str | None = None,
    trial: int | None = None,
    start: int = 0,
    end: int | None = None,
    endpoint: str | None = None,
    link: Link | None = None,
    timeout_s: float = 10.0,
) -> Iterator[Record]:
    """Read a finite range of the log: from `start` up to `end`, or to where the log ends now.

    Raises:
        HubUnavailableError: No hub answered within `timeout_s` seconds.

    Example:
        >>> for record in replay(study="digits"):  # doctest: +SKIP
        ...     print(record.offset, record.event)
    """
    with subscribe(
        *types, study=study, trial=trial, start=start, endpoint=endpoint, link=link
    ) as subscriber:
        yield from subscriber.read_to(end, timeout_s)
