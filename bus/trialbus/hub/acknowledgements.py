"""Acknowledgements: tells publishers what the log has, at once or when a peer can take more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeAlias

from trialbus.hub.router import Router
from trialbus.hub.windows import Windows
from trialbus.protocol import frames

_RETRY_S = 0.005
_GIVE_UP_S = 1.0  # the publisher sends again after this time

#: A connection, and the secret of a publisher that sends over the connection.
Owed: TypeAlias = tuple[bytes, bytes]


class Acknowledgements:
    """Sends acknowledgements, and those again that a connection with many publishers cannot take.

    Args:
        router: Sends the frames.
        windows: Grants the bytes that a publisher may send before the next acknowledgement.
        find_last: Returns the sequence number of a publisher's newest event, by its secret.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        router: Router,
        windows: Windows,
        find_last: Callable[[bytes], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._windows = windows
        self._find_last = find_last
        self._clock = clock
        self._late: dict[Owed, float] = {}  # when each is given up
        self.due = float("inf")  #: time at which `send` has to be called again

    def clear(self) -> None:
        """Forget what is owed to connections that were closed."""
        self._late.clear()
        self.due = float("inf")

    def send(self, owed: Iterable[Owed]) -> None:
        """Send new acknowledgements, and late ones when they are due."""
        now = self._clock()
        deadlines = dict.fromkeys(owed, now + _GIVE_UP_S)
        if now >= self.due:
            deadlines |= self._late
            self.clear()
        full: set[bytes] = set()
        for (peer, publisher), deadline in deadlines.items():
            if peer not in full:
                window = self._windows.grant(publisher)
                ack = frames.Ack(publisher, self._find_last(publisher), window)
                if self._router.send(peer, ack) or not self._router.is_full:
                    continue
                full.add(peer)
            if now < deadline:
                self._late[peer, publisher] = deadline
        if self._late:
            self.due = min(self.due, now + _RETRY_S)
