"""Steady clock: the time since the epoch, as if nobody set the machine's clock."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """Time in seconds since the epoch, which goes on evenly from the moment of construction.

    Args:
        wall_clock: Clock of the machine, which is read once.
        clock: Monotonic clock, in seconds.

    Example:
        >>> now = SteadyClock(wall_clock=lambda: 1000.0, clock=iter([5.0, 7.5]).__next__)
        >>> now()
        1002.5
    """

    def __init__(
        self,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._offset = wall_clock() - clock()

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._offset + self._clock()
