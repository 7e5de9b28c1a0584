"""How long suggestions take."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_REMEMBERED = 1000


@dataclass(frozen=True)
class Latency:
    """How long the newest suggestions took, in seconds.

    Attributes:
        asking_p50: Median of computing one, in the process.
        asking_p99: Their 99th percentile.
        answer_p50: Median from `request` to the arrival of its suggestion; 0 if it was there.
        answer_p99: Their 99th percentile.
    """

    asking_p50: float
    asking_p99: float
    answer_p50: float
    answer_p99: float


class Latencies:
    """Seconds of the newest suggestions."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def add(self, asking_s: float, answer_s: float) -> None:
        """Add a suggestion: how long it was computed, and waited for."""
        self._pairs.append((asking_s, answer_s))

    def summary(self) -> Latency | None:
        """Return their percentiles; None if there are none."""
        if not self._pairs:
            return None
        asking, answer = (sorted(values) for values in zip(*self._pairs, strict=True))
        return Latency(
            asking_p50=_percentile(asking, 50),
            asking_p99=_percentile(asking, 99),
            answer_p50=_percentile(answer, 50),
            answer_p99=_percentile(answer, 99),
        )


def _percentile(values: Sequence[float], percent: int) -> float:
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]
