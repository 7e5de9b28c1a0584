"""Reader: the part of a link that fetches for a subscriber, and hands batches to its thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

from trialbus.client.link import Link, Send
from trialbus.errors import ClosedError, HubRefusedError, LogResetError, TrialbusError
from trialbus.protocol import frames
from trialbus.protocol.frames import Record

Start: TypeAlias = Literal["now", "earliest"] | int

_WAIT_MS = 30_000
_ANSWER_S = 5.0  # beyond the wait it asked for
_BUFFERED_BATCHES = 2
_ANSWERS = 16  # that the hub may send before it is asked again; more than a subscriber falls behind
_RETRY_S = 0.5


class Reader:
    """The part of a link that fetches, and the hand-over of batches to the reading thread."""

    def __init__(self, link: Link, patterns: list[str], start: Start, name: str | None) -> None:
        self._link = link
        self._patterns = patterns
        self._name = name
        self._moved = threading.Condition()
        self._batches: deque[list[Record]] = deque()
        self._error: TrialbusError | None = None
        self.on_arrival: Callable[[], object] | None = None
        self._log_id: str | None = None
        self._commit_offset: int | None = None
        self._commit_done = threading.Event()
        self._commit_sent = False
        self._request: int | None = None
        self._answer_by = 0.0
        self._refused_until = 0.0
        self._resolved = False  # whether the hub has said where this begins, and the log ends
        self.position = (
            start
            if isinstance(start, int)
            else {"now": frames.NOW, "earliest": frames.EARLIEST}[start]
        )
        self.log_end = 0
        self.closed = False

    # --- the reading thread ---

    @property
    def available(self) -> bool:
        """Whether `take` would return something, or raise."""
        return bool(self._batches) or self._error is not None or self.closed

    def take(self) -> list[Record]:
        """Return what has arrived, without waiting."""
        with self._moved:
            if self._batches:
                batch = self._batches.popleft()
                self._link.wake()  # there is room to fetch more
                return batch
            if self._error is not None:
                raise self._error
            if self.closed:
                raise ClosedError("the subscriber is closed")
            return []

    def passed(self, offset: int | None) -> int | None:
        """Return how far the log is known to hold nothing more to take; else `offset`."""
        with self._moved:
            return self.position if self._resolved and not self._batches else offset

    def wait(self, timeout_s: float | None) -> list[Record]:
        """Return the next batch; empty if none comes in time."""
        with self._moved:
            self._moved.wait_for(lambda: self.available, timeout_s)
        return self.take()

    def wait_ready(self, timeout_s: float) -> int | None:
        """Wait for the offset to start from; None if it is not settled in time."""
        with self._moved:
            self._moved.wait_for(
                lambda: (self._resolved and self._log_id is not None) or self.available, timeout_s
            )
            if self._error is not None:
                raise self._error
            ready = self._resolved and self._log_id is not None
            first = self._batches[0][0].offset if self._batches else self.position
            return first if ready else None

    def wait_moved(self, position: int, timeout_s: float) -> bool:
        """Wait until the position is another, or something is at hand."""
        with self._moved:
            return self._moved.wait_for(
                lambda: self.position != position or self.available, timeout_s
            )

    def commit(self, offset: int) -> threading.Event:
        """Commit an offset; the event is set when it is on disk."""
        with self._moved:
            self._commit_offset = offset
            self._commit_done = threading.Event()
            self._commit_sent = False
            return self._commit_done

    # --- the link's thread ---

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Ask again; what was asked on the old connection is void."""
        with self._moved:
            if self._log_id not in (None, welcome.log_id):
                self._fail(LogResetError(str(self._log_id), welcome.log_id))
            self._log_id = welcome.log_id
            self.log_end = welcome.end
            self._request = None
            self._commit_sent = False
            self._moved.notify_all()

    def on_frame(self, frame: frames.ToClient) -> None:
        """Take an answer."""
        match frame:
            case frames.Events() if frame.request == self._request:
                with self._moved:
                    self._request = frame.request if frame.more else None
                    self._resolved = True
                    self.position = frame.next
                    self.log_end = max(self.log_end, frame.end)
                    if frame.records:
                        self._batches.append(frame.records)
                    self._announce()
            case frames.Committed() if (
                frame.name == self._name and frame.offset == self._commit_offset
            ):
                self._commit_offset = None
                self._commit_done.set()
            case frames.Refused() if frame.about is not None and frame.about in (
                self._request,
                self._name,
            ):
                if frame.code in (frames.TOO_MANY, frames.NO_SPACE):
                    self._refused_until = time.monotonic() + 1.0
                    self._request = None
                else:
                    with self._moved:
                        self._fail(HubRefusedError(frame.code, frame.reason))
            case _:
                return

    def work(self, send: Send, now: float) -> float | None:
        """Commit and fetch what is due."""
        if self._commit_offset is not None and not self._commit_sent and self._name is not None:
            self._commit_sent = send(frames.Commit(self._name, self._commit_offset))
        if self._error is not None:
            return None
        if self._request is not None and now < self._answer_by:
            return self._answer_by
        if len(self._batches) >= _BUFFERED_BATCHES:
            return None
        if now < self._refused_until:
            return self._refused_until
        self._request = self._link.next_request()
        self._answer_by = now + _WAIT_MS / 1000 + _ANSWER_S
        # Waiting begins at the end of the log: before it, even an empty answer is progress.
        at_end = self._resolved and self.position >= self.log_end
        fetch = frames.Fetch(
            self._request,
            self.position,
            self._patterns,
            wait_ms=_WAIT_MS if at_end else 0,
            name=None if self._resolved else self._name,
            answers=_ANSWERS,
        )
        if not send(fetch):
            self._request = None
            return now + _RETRY_S
        return self._answer_by

    def on_close(self) -> None:
        """Let the reading thread know that nothing comes any more."""
        with self._moved:
            self.closed = True
            self._announce()

    def _fail(self, error: TrialbusError) -> None:
        self._error = error
        self._announce()

    def _announce(self) -> None:
        self._moved.notify_all()
        on_arrival = self.on_arrival
        if on_arrival is not None:
            on_arrival()
