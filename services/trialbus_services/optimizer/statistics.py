"""Statistics of a running optimizer, from which its status is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.ledger import Ledger
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.status import OptimizerStatus
from trialbus_services.optimizer.storage_writer import WriteBehind


class Statistics:
    """Events and latencies counted since the optimizer started."""

    def __init__(self) -> None:
        self.applied = 0
        #: Events that were not applied, by the reason.
        self.refused: Counter[str] = Counter()
        self.last_refused = ""
        self.decision = Latency()
        self.answer = Latency()
        self.sampling = Latency()

    def refuse(self, reason: str, what: str) -> bool:
        """Count an event that is not applied; return whether it is the first for this reason."""
        self.refused[reason] += 1
        self.last_refused = f"{reason}: {what}"
        return self.refused[reason] == 1

    def status(
        self, studies: Mapping[str, RunningStudy], ledger: Ledger, storage: WriteBehind
    ) -> OptimizerStatus:
        """Return the optimizer's status."""
        counts = [study.counts for study in studies.values()]
        books = [(name, ledger.studies[name]) for name in studies]
        paused = [name for name, book in books if book.is_paused]
        return OptimizerStatus(
            studies=len(studies),
            complete=sum(count.complete for count in counts),
            pruned=sum(count.pruned for count in counts),
            failed=sum(count.failed for count in counts),
            running=sum(len(book.trials.open) for _, book in books),
            n_paused=len(paused),
            paused=", ".join(paused),
            applied=self.applied,
            refused=dict(self.refused),
            last_refused=self.last_refused,
            pending_rows=storage.pending,
            storage_error="" if storage.failing_since is None else str(storage.last_error),
            decision=self.decision.percentiles(),
            answer=self.answer.percentiles(),
            sampling=self.sampling.percentiles(),
        )
