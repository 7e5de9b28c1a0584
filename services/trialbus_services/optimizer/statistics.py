"""What the optimizer says of itself: counters, and how long it takes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from trialbus_services.optimizer.ledger import Ledger
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.storage_writer import WriteBehind

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

    def describe(
        self, studies: Mapping[str, RunningStudy], ledger: Ledger, storage: WriteBehind
    ) -> dict[str, str]:
        """Return how things are, as the hub's status shows it; docs/protocol.md has the keys."""
        counts = [study.counts for study in studies.values()]
        books = [(name, ledger.studies[name]) for name in studies]
        return {
            "studies": str(len(studies)),
            "complete": str(sum(count.complete for count in counts)),
            "pruned": str(sum(count.pruned for count in counts)),
            "failed": str(sum(count.failed for count in counts)),
            "running": str(sum(len(book.open) for _, book in books)),
            "paused": ", ".join(name for name, book in books if book.paused),
            "applied": str(self.applied),
            "refused": str(self.refused.total()),
            "last_refused": self.last_refused,
            "pending_rows": str(storage.pending),
            "decision": self.decision.text("us"),
            "answer": self.answer.text("ms"),
            "storage_error": "" if storage.failing_since is None else str(storage.last_error),
        }
