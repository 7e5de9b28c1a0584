"""Latency: the durations of the newest operations of a kind."""

from __future__ import annotations

import statistics
from collections import deque

import msgspec

_N_NEWEST = 1000


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of the newest latencies of an operation."""

    p50_s: float
    """Median, in seconds."""
    p99_s: float
    """99th percentile, in seconds."""


class Latency:
    """The newest latencies of an operation, in seconds; any thread may add and read."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=_N_NEWEST)

    def add(self, seconds: float) -> None:
        """Add a latency in seconds."""
        self._newest.append(seconds)

    def compute_percentiles(self) -> Percentiles | None:
        """Return the percentiles of the newest latencies; None before the first."""
        latencies = list(self._newest)
        if not latencies:
            return None
        if len(latencies) == 1:
            return Percentiles(latencies[0], latencies[0])
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
        return Percentiles(cuts[49], cuts[98])
