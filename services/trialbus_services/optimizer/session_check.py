"""SessionCheck: finds requesters that the hub does not know, whose loss nobody would notice."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from trialbus.client.part_driver import PartDriver, Send
from trialbus.protocol import frames

_INTERVAL_S = 5.0
_REPEAT_S = 1.0


class SessionCheck:
    """Compares the sessions of requesters with the sessions of the hub, without waiting.

    A session counts as unknown if two answers in a row lack the session, so that an end of the
    trial which is still on the way arrives first.

    Args:
        link: Connection to the hub.
        clock: Monotonic seconds.
    """

    def __init__(self, link: PartDriver, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._due_at = clock()
        self._request = 0  # 0 while no answer is awaited
        self._asked: frozenset[str] = frozenset()
        self._missing: frozenset[str] = frozenset()  # of the answer before
        self._unknown: frozenset[str] = frozenset()
        link.attach(self)

    @property
    def is_due(self) -> bool:
        """Whether it is time for a question."""
        return self._request == 0 and self._clock() >= self._due_at

    def ask(self, sessions: Collection[str]) -> None:
        """Ask the hub which of some sessions it knows."""
        self._due_at = self._clock() + _INTERVAL_S
        self._asked = frozenset(sessions)
        if not sessions:
            self._missing = frozenset()
            return
        self._request = self._link.next_request()
        self._link.wake()

    def take_unknown(self) -> frozenset[str]:
        """Return the sessions that turned out to be unknown since the last call."""
        unknown, self._unknown = self._unknown, frozenset()
        return unknown

    # --- the link's thread ---

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Do nothing: a question without an answer is repeated."""

    def on_frame(self, frame: frames.ToClient) -> None:
        """Compare the sessions with the hub's."""
        if self._request and isinstance(frame, frames.Status) and frame.request == self._request:
            missing = self._asked - {row.session for row in frame.status.sessions}
            self._unknown |= missing & self._missing
            self._missing = missing
            self._request = 0

    def work(self, send: Send, now: float) -> float | None:
        """Send the question until the answer has arrived."""
        if not self._request:
            return None
        send(frames.AskStatus(self._request))
        return now + _REPEAT_S

    def on_close(self) -> None:
        """Do nothing: no thread waits for an answer."""
