"""A subscriber: reads matching events of the log from an offset on, and waits for new events."""

from __future__ import annotations

import atexit
import logging
import math
import sys
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, overload

import msgspec

from trialbus.client.fetcher import Fetcher, Start
from trialbus.client.link import Link
from trialbus.errors import SpecError
from trialbus.messages import codec, events
from trialbus.messages.topics import make_pattern
from trialbus.protocol.frames import Record

__all__ = ["Record", "Subscriber", "replay", "subscribe"]

logger = logging.getLogger(__name__)

_QUIET_S = 2.0  # after which a loop over events says that it waits for a hub
_COMMIT_EVERY_S = 0.5
_IDLE_S = 30.0  # an idle subscriber with a durable name checks for a commit this often

E_co = TypeVar("E_co", bound=events.AnyEvent, covariant=True)
T = TypeVar("T", bound=events.Event)


class Subscriber(Generic[E_co]):
    """An iterator over events, also an async iterator and a context manager. Made by `subscribe`.

    Iteration does not end: it waits for future events. An event whose body does not fit its type is
    skipped and counted in `unreadable`. Not for use by two threads at once.
    """

    def __init__(self, fetcher: Fetcher, link: Link, *, owns_link: bool, autocommit: bool) -> None:
        self._fetcher = fetcher
        self._link = link
        self._owns_link = owns_link
        self._autocommit = autocommit
        self._batch: deque[Record] = deque()
        self._committed_at = time.monotonic()
        self._committed: int | None = None
        self.unreadable = 0  #: number of events whose body could not be decoded
        #: Offset after the last event returned; None before the first event.
        self.offset: int | None = None
        self._handled: int | None = None  # the offset when another event was asked for
        if autocommit:
            _open.add(self)

    def __enter__(self) -> Subscriber[E_co]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(self._handled if error else self.offset)

    async def __aenter__(self) -> Subscriber[E_co]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(self._handled if error else self.offset)

    def __del__(self) -> None:
        if not sys.is_finalizing():  # the link's thread has ended by then
            self._close(self._handled)

    def __iter__(self) -> Iterator[E_co]:
        try:
            if self._fetcher.wait_ready(_QUIET_S) is None:
                self._note_missing_hub()
            while True:
                event = self.next(None)
                if event is not None:
                    yield event
        finally:
            self._commit_handled()

    def _note_missing_hub(self) -> None:
        if not self._link.connected:
            logger.warning("no hub answers at %s; waiting for one", self._link.endpoint)

    async def __aiter__(self) -> AsyncIterator[E_co]:
        import asyncio  # a training reads no events, and starts faster without

        note = asyncio.get_running_loop().call_later(_QUIET_S, self._note_missing_hub)
        try:
            async for event in self._arrivals():
                yield event
        finally:
            note.cancel()
            self._commit_handled()

    async def _arrivals(self) -> AsyncIterator[E_co]:
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            event = self._take_event()
            if event is not None:
                yield event
                continue
            arrived = asyncio.Event()
            self._fetcher.on_arrival = partial(loop.call_soon_threadsafe, arrived.set)
            try:
                if not self._fetcher.available:
                    # Not `wait_for`: before Python 3.12 it may swallow a cancellation.
                    async with asyncio.timeout(self._commit_in_s()):
                        await arrived.wait()
            except TimeoutError:
                continue
            finally:
                self._fetcher.on_arrival = None
            self._batch.extend(self._fetcher.take_batch())

    def wake_on_arrival(self, wake: Callable[[], object]) -> None:
        """Register a function that another thread calls on every arrival, and on closing."""
        self._fetcher.on_arrival = wake

    @property
    def available(self) -> bool:
        """Whether `next` would return an event, or raise, at once."""
        return bool(self._batch) or self._fetcher.available

    @property
    def caught_up(self) -> bool:
        """Whether every event up to the end of the log that the hub last reported has been read."""
        return self._fetcher.position >= self._fetcher.log_end and not self.available

    def next(self, timeout_s: float | None = None) -> E_co | None:
        """Return the next event, or None if no event arrives within `timeout_s` seconds.

        Raises:
            LogResetError: The hub serves another log than before.
            HubRefusedError: The hub refuses the subscription.
            ClosedError: The subscriber was closed.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while (event := self._take_event()) is None:
            left_s = max(0.0, deadline - time.monotonic())
            batch = self._fetcher.wait_for_batch(min(left_s, self._commit_in_s()))
            if not batch and left_s <= 0:
                return None
            self._batch.extend(batch)
        return event

    def records(self, timeout_s: float | None = None) -> list[Record]:
        """Return the next batch of undecoded events; empty if no event arrives in time.

        Waits up to `timeout_s` seconds. Raises the same errors as `next`. For services that commit
        after they stored a batch.
        """
        self._handled = self.offset
        records = list(self._batch) or self._fetcher.wait_for_batch(timeout_s)
        self._batch.clear()
        if records:
            self.offset = records[-1].offset + 1
        return records

    def read_to(self, end: int | None, timeout_s: float = 10.0) -> Iterator[Record]:
        """Yield the records before offset `end`; None means the present end of the log.

        Raises:
            HubUnavailableError: The hub sent no progress for `timeout_s` seconds.
        """
        self.wait_ready(timeout_s)
        fetcher = self._fetcher
        end = fetcher.log_end if end is None else end
        while True:
            position = fetcher.position
            batch = fetcher.take_batch()
            for record in batch:
                if record.offset >= end:
                    return
                self.offset = record.offset + 1
                yield record
            if not batch and position >= end:
                return
            if not batch and not fetcher.wait_for_progress(position, timeout_s):
                raise self._link.make_unavailable_error(timeout_s)

    def wait_ready(self, timeout_s: float = 10.0) -> int:
        """Wait until the hub has answered and return the offset at which the subscriber starts.

        No matching event published after this call returned is missed.

        Raises:
            HubUnavailableError: No hub answered in time.
        """
        offset = self._fetcher.wait_ready(timeout_s)
        if offset is None:
            raise self._link.make_unavailable_error(timeout_s)
        if self.offset is None:
            self.offset = offset
        return offset

    def commit(self, offset: int | None = None, *, wait_s: float = 0.0) -> bool:
        """Store `offset` under the durable name: every event before `offset` is processed.

        Args:
            offset: None means the offset after the last event returned.
            wait_s: Seconds to wait until the hub has the commit on disk.

        Returns:
            Whether the commit is known to be on disk.

        Raises:
            SpecError: The value is no offset, or lies behind the events that have arrived. The hub
                would take the latter for a sign that its log has lost events.
        """
        offset = self.offset if offset is None else offset
        if offset is None:
            return False
        end = self._fetcher.known_end
        if not _is_offset(offset) or (end is not None and offset > end):
            limit = "" if end is None else f" up to {end}, before which every event has arrived"
            raise SpecError("offset", f"{offset!r} cannot be committed (expected an offset{limit})")
        self._committed_at = time.monotonic()
        self._committed = offset
        done = self._fetcher.commit(offset)
        self._link.wake()
        return done.wait(wait_s)

    def close(self) -> None:
        """Close the subscriber; with `autocommit`, commit the events returned so far before."""
        self._close(self.offset)

    def close_at_exit(self) -> None:
        """Close the subscriber; with `autocommit`, commit the events before the last returned."""
        self._close(self._handled)

    def _close(self, offset: int | None) -> None:
        if self._fetcher.closed or self._link.is_forked:
            return
        if self._autocommit and offset is not None and self._link.connected:
            self.commit(offset, wait_s=0.0 if self._link.is_current_thread else 1.0)
        self._fetcher.on_close()
        self._link.detach(self._fetcher)
        if self._owns_link:
            self._link.close()

    def _commit_handled(self) -> None:
        """Commit the events before the last returned event: an error may have ended the loop."""
        if self._autocommit and self._handled != self._committed and not self._fetcher.closed:
            self.commit(self._handled)

    def _commit_in_s(self) -> float:
        """Return the seconds until the next automatic commit is due, or has to be checked."""
        if not self._autocommit or self.offset == self._committed:
            return _IDLE_S
        return max(0.0, self._committed_at + _COMMIT_EVERY_S - time.monotonic())

    def _take_event(self) -> E_co | None:
        """Return the next event that has arrived; the previous event counts as processed."""
        if self._autocommit and not self._batch:
            # Events that do not match count as processed too, so that the log may drop them.
            self.offset = self._fetcher.skip_unmatched(self.offset)
        self._handled = self.offset
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
        types: Event classes, or names of event types; without any, every type.
        study: Only events of this study.
        trial: Only events of the trial with this number.
        start: `now`, `earliest`, or an offset.
        name: A durable name: the hub stores the committed offset under this name, and the next
            subscriber of the name continues there; `start` applies to the first one only. One
            subscriber at a time may use a name.
        autocommit: With a name, commit the processed events every half second, and when the
            subscriber is closed. Turn this off to call `commit` after the results of processing are
            safe.
        endpoint: Address of the hub; None means `$TRIALBUS_ENDPOINT` or the default.
        link: A link to share, in place of an endpoint.

    Raises:
        SpecError: A type is neither an event class nor the name of an event type (names the nearest
            type), or `start` is none of `now`, `earliest` and an offset.

    Delivery:
        Every matching event in the order of the log, without gaps. After a crash, the subscriber
        of a durable name receives the uncommitted events again. An event counts as processed when
        the next one is asked for, or when a `with` block is left without an error. A loop outside
        of a `with` block, or a block left by an error, leaves its last event uncommitted.

    Example:
        >>> for event in subscribe(trialbus.EvaluationComplete, study="digits"):  # doctest: +SKIP
        ...     print(event.trial, event.step, event.metrics)
    """
    names = [get_type_name(type_) for type_ in types]
    _check_start(start)
    patterns = [make_pattern(name_, study, trial) for name_ in names] or [
        make_pattern(None, study, trial)
    ]
    owns_link = link is None
    link = Link(endpoint) if link is None else link
    fetcher = Fetcher(link, patterns, start, name)
    link.attach(fetcher)
    return Subscriber(
        fetcher, link, owns_link=owns_link, autocommit=autocommit and name is not None
    )


def get_type_name(type_: object) -> str:
    """Return the name of an event type, given the name or an event class."""
    if isinstance(type_, type) and issubclass(type_, events.Event):
        type_ = str(type_.__struct_config__.tag)
    if not isinstance(type_, str):
        raise SpecError(
            "event type",
            f"{type_!r} is not an event type (expected an event class, such as "
            "trialbus.EvaluationComplete, or the name of a type, such as 'evaluation_complete')",
        )
    codec.check_type(type_)
    return type_


def _is_offset(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_start(start: object) -> None:
    if not _is_offset(start) and start not in ("earliest", "now"):
        raise SpecError("start", f"{start!r} is not a start (expected earliest, now or an offset)")


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
    """Yield the matching records from offset `start` up to `end`; None means the log's present end.

    Raises:
        HubUnavailableError: No hub answered within `timeout_s` seconds.
        SpecError: No event can have one of the types; names the nearest type.

    Example:
        >>> for record in replay(study="digits"):  # doctest: +SKIP
        ...     print(record.offset, record.event)
    """
    with subscribe(
        *types, study=study, trial=trial, start=start, endpoint=endpoint, link=link
    ) as subscriber:
        yield from subscriber.read_to(end, timeout_s)


_open: weakref.WeakSet[Subscriber[Any]] = weakref.WeakSet()  # those with autocommit


@atexit.register
def _close_at_exit() -> None:
    for subscriber in list(_open):
        subscriber.close_at_exit()
