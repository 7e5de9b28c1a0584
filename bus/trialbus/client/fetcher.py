"""A fetcher: the part of a link that fetches records for a subscriber, batch by batch."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

from trialbus.client.part_driver import Send
from trialbus.errors import ClosedError, HubRefusedError, LogResetError, TrialbusError
from trialbus.protocol import frames
from trialbus.protocol.frames import Record

Start: TypeAlias = Literal["now", "earliest"] | int

_WAIT_MS = 30_000
_ANSWER_S = 5.0  # for an answer to a commit, or to a fetch beyond the wait that it allows
_BUFFERED_BATCHES = 2
_ANSWERS = 16  # to one fetch; enough that a live subscriber seldom has to fetch again
_RETRY_S = 0.5  # after a frame that no connection accepted
_REFUSED_S = 1.0  # after a refusal that passes


class Waker(Protocol):
    """The methods of a link that a fetcher calls."""

    def wake(self) -> None:
        """Make the link's thread call every part at once."""

    def next_request(self) -> int:
        """Return an unused request number."""
        ...


class Fetcher:
    """Fetches records in the link's thread, for the subscriber's thread to take.

    Args:
        link: The link that drives this part.
        patterns: Topic patterns; a record matches any of them.
        start: `now`, `earliest` or an offset; for a durable name, only before its first commit.
        name: Durable name, or None.
    """

    def __init__(self, link: Waker, patterns: list[str], start: Start, name: str | None) -> None:
        self._link = link
        self._patterns = patterns
        self._name = name
        self._reader = uuid.uuid4().hex
        self._changed = threading.Condition()
        self._batches: deque[list[Record]] = deque()
        self._error: TrialbusError | None = None
        self.on_arrival: Callable[[], object] | None = None
        self._log_id: str | None = None
        self._commit_offset: int | None = None
        self._commit_done = threading.Event()
        self._commit_due = 0.0  # when to send the commit, again if there is no answer
        self._request: int | None = None
        self._answer_by = 0.0
        self._is_refused = False  # for now; the next call of `work` sets `_retry_at`
        self._retry_at = 0.0
        self._is_resolved = False  # the hub has answered: `position` and `log_end` are offsets
        #: Offset of the next record to fetch, or `frames.NOW` or `frames.EARLIEST`.
        self.position = (
            start
            if isinstance(start, int)
            else {"now": frames.NOW, "earliest": frames.EARLIEST}[start]
        )
        self.log_end = 0  #: offset after the newest record, as the hub last reported
        self.closed = False

    # --- the subscriber's thread ---

    @property
    def available(self) -> bool:
        """Whether `take_batch` would return records, or raise."""
        return bool(self._batches) or self._error is not None or self.closed

    @property
    def known_end(self) -> int | None:
        """Offset before which every matching event has arrived; None before the first answer."""
        return self.position if self._is_resolved else None

    def take_batch(self) -> list[Record]:
        """Return the oldest batch of records that has arrived, without waiting; empty if none."""
        with self._changed:
            if self._batches:
                batch = self._batches.popleft()
                self._link.wake()  # there is room to fetch more
                return batch
            if self._error is not None:
                raise self._error
            if self.closed:
                raise ClosedError("the subscriber is closed")
            return []

    def skip_unmatched(self, offset: int | None) -> int | None:
        """Return the offset before which no matching record is left to read; else `offset`."""
        with self._changed:
            return self.position if self._is_resolved and not self._batches else offset

    def wait_for_batch(self, timeout_s: float | None) -> list[Record]:
        """Return the next batch of records; empty after `timeout_s` seconds without records."""
        with self._changed:
            self._changed.wait_for(lambda: self.available, timeout_s)
        return self.take_batch()

    def wait_ready(self, timeout_s: float) -> int | None:
        """Return the offset to start from, or None if the hub does not answer in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: (self._is_resolved and self._log_id is not None) or self.available,
                timeout_s,
            )
            if self._error is not None:
                raise self._error
            ready = self._is_resolved and self._log_id is not None
            first = self._batches[0][0].offset if self._batches else self.position
            return first if ready else None

    def wait_for_progress(self, position: int, timeout_s: float) -> bool:
        """Wait until the position differs from `position`, or a batch or an error is available."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.position != position or self.available, timeout_s
            )

    def commit(self, offset: int) -> threading.Event:
        """Commit an offset and return an event that is set when the hub has the commit on disk."""
        with self._changed:
            self._commit_offset = offset
            self._commit_done = threading.Event()
            self._commit_due = 0.0
            return self._commit_done

    # --- the link's thread ---

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Send the fetch and the commit again on a new connection; compare the log's id."""
        with self._changed:
            if self._log_id not in (None, welcome.log_id):
                self._fail(LogResetError(str(self._log_id), welcome.log_id))
            self._log_id = welcome.log_id
            self.log_end = welcome.end
            self._request = None
            self._commit_due = 0.0
            self._changed.notify_all()

    def on_frame(self, frame: frames.ToClient) -> None:
        """Handle an answer to a fetch or to a commit."""
        match frame:
            case frames.Events() if frame.request == self._request:
                with self._changed:
                    self._request = frame.request if frame.more else None
                    self._is_resolved = True
                    self.position = frame.next
                    self.log_end = max(self.log_end, frame.end)
                    if frame.records:
                        self._batches.append(frame.records)
                    self._notify()
            case frames.Committed() if (
                frame.name == self._name and frame.offset == self._commit_offset
            ):
                self._commit_offset = None
                self._commit_done.set()
            case frames.Refused(code=frames.NO_SPACE) if frame.about == self._name is not None:
                pass  # the commit is sent again after `_ANSWER_S`
            case frames.Refused() if frame.about is not None and frame.about in (
                self._request,
                self._name,
            ):
                if frame.code in (frames.TOO_MANY, frames.NO_SPACE):
                    self._is_refused = True
                    self._request = None
                else:
                    with self._changed:
                        self._fail(HubRefusedError(frame.code, frame.reason))
            case _:
                return

    def work(self, send: Send, now: float) -> float | None:
        """Send the commit and the fetch that are due."""
        commit_due = self._send_commit(send, now)
        fetch_due = self._send_fetch(send, now)
        if commit_due is None or fetch_due is None:
            return fetch_due if commit_due is None else commit_due
        return min(commit_due, fetch_due)

    def _send_commit(self, send: Send, now: float) -> float | None:
        offset = self._commit_offset
        if offset is None or self._name is None:
            return None
        if now >= self._commit_due:
            is_sent = send(frames.Commit(self._name, offset, self._reader))
            self._commit_due = now + (_ANSWER_S if is_sent else _RETRY_S)
        return self._commit_due

    def _send_fetch(self, send: Send, now: float) -> float | None:
        if self._error is not None:
            return None
        if self._request is not None and now < self._answer_by:
            return self._answer_by
        if len(self._batches) >= _BUFFERED_BATCHES:
            return None
        if self._is_refused:
            self._is_refused = False
            self._retry_at = now + _REFUSED_S
        if now < self._retry_at:
            return self._retry_at
        self._request = self._link.next_request()
        self._answer_by = now + _WAIT_MS / 1000 + _ANSWER_S
        # Only a fetch at the end of the log waits: before the end, an empty answer is progress too.
        at_end = self._is_resolved and self.position >= self.log_end
        fetch = frames.Fetch(
            self._request,
            self.position,
            self._patterns,
            wait_ms=_WAIT_MS if at_end else 0,
            name=None if self._is_resolved else self._name,
            answers=_ANSWERS,
            reader="" if self._name is None else self._reader,
        )
        if not send(fetch):
            self._request = None
            return now + _RETRY_S
        return self._answer_by

    def on_close(self) -> None:
        """Tell the subscriber's thread that no more records come."""
        with self._changed:
            self.closed = True
            self._notify()

    def _fail(self, error: TrialbusError) -> None:
        self._error = error
        self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        on_arrival = self.on_arrival
        if on_arrival is not None:
            on_arrival()
