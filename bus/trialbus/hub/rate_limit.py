"""RateLimit: how many things each connection may add in a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

_WINDOW_S = 60.0


class RateLimit:
    """Limit of the additions of each connection in a minute.

    Args:
        per_minute: Largest number for each connection.
        clock: Seconds; a test passes another clock.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._window_end = clock() + _WINDOW_S
        self._counts: dict[bytes, int] = {}

    def admit(self, peer: bytes) -> bool:
        """Count an addition of a connection; return False, without counting, above the limit."""
        now = self._clock()
        if now >= self._window_end:
            self._window_end = now + _WINDOW_S
            self._counts.clear()
        count = self._counts.get(peer, 0)
        if count >= self._per_minute:
            return False
        self._counts[peer] = count + 1
        return True
