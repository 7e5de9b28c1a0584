"""Windows: bounds of each publisher's unacknowledged bytes, so that the sum fits into memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from trialbus.protocol import limits

_PERIOD_S = 10.0


class Windows:
    """Shares the hub's memory for unacknowledged events among the recently active publishers.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._period_ends = clock() + _PERIOD_S
        self._active: set[bytes] = set()
        self._n_before = 0

    def grant(self, publisher: bytes) -> int:
        """Return the number of bytes that a publisher may have sent and not acknowledged."""
        now = self._clock()
        if now >= self._period_ends:
            is_recent = now < self._period_ends + _PERIOD_S
            self._n_before = len(self._active) if is_recent else 0
            self._active.clear()
            self._period_ends = now + _PERIOD_S
        self._active.add(publisher)
        share = limits.IN_FLIGHT // max(len(self._active), self._n_before)
        return max(limits.MIN_WINDOW, min(share, limits.MAX_WINDOW))
