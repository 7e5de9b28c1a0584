"""What the optimizer says of itself: counters, and how long it takes."""

from __future__ import annotations

from collections import Counter, deque

_KEPT = 1000


class Latency:
    """The newest durations of something, in seconds."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=_KEPT)

    def add(self, seconds: float) -> None:
        """Take one in."""
        self._newest.append(seconds)

    def text(self, unit: str) -> str:
        """Return for example `p50 0.4 ms, p99 2.1 ms`; empty before the first."""
        if not self._newest:
            return ""
        ordered = sorted(self._newest)
        scale = {"us": 1e6, "ms": 1e3}[unit]
        p50, p99 = (ordered[len(ordered) * share // 100] * scale for share in (50, 99))
        return f"p50 {p50:.3g} {unit}, p99 {p99:.3g} {unit}"


class Statistics:
    """Counted since the optimizer started."""

    def __init__(self) -> None:
        self.applied = 0
        #: Events that were not applied, by the reason.
        self.refused: Counter[str] = Counter()
        self.last_refused = ""
        self.decision = Latency()
        self.answer = Latency()

    def refuse(self, reason: str, what: str) -> bool:
        """Count an event that is not applied; return whether it is the first for this reason."""
        self.refused[reason] += 1
        self.last_refused = f"{reason}: {what}"
        return self.refused[reason] == 1
