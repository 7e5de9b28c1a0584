"""StatusCollector: counts events, collects latencies and makes the optimizer's status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.ledger import Ledger
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.status import OptimizerStatus
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind


class StatusCollector:
    """Counts events and collects latencies since the optimizer started."""

    def __init__(self) -> None:
        #: Number of events that were applied.
        self.applied = 0
        #: Events that were not applied, by the reason.
        self.refused: Counter[str] = Counter()
        #: Reason and event of the last refusal; empty before the first.
        self.last_refused = ""
        #: See `OptimizerStatus` for these latencies.
        self.decision = Latency()
        self.answer = Latency()
        self.sampling = Latency()

    def count_refusal(self, reason: str, event: str) -> bool:
        """Count an event that is not applied; return whether the reason is new.

        Args:
            reason: The reason, with the same text for every event.
            event: Description of the event.
        """
        self.refused[reason] += 1
        self.last_refused = f"{reason}: {event}"
        return self.refused[reason] == 1

    def make_status(
        self, studies: Mapping[str, RunningStudy], ledger: Ledger, storage: WriteBehind
    ) -> OptimizerStatus:
        """Return the status of the optimizer.

        Args:
            studies: Running studies by name.
            ledger: Ledger that has the studies.
            storage: Storage that records the studies.
        """
        counts = [study.counts for study in studies.values()]
        states = [ledger.studies[name] for name in studies]
        paused = [state.spec.name for state in states if state.is_paused]
        return OptimizerStatus(
            studies=len(studies),
            complete=sum(count.complete for count in counts),
            pruned=sum(count.pruned for count in counts),
            failed=sum(count.failed for count in counts),
            running=sum(len(state.trials.open) for state in states),
            n_paused=len(paused),
            paused=", ".join(paused),
            applied=self.applied,
            refused=dict(self.refused),
            last_refused=self.last_refused,
            pending_rows=storage.n_pending,
            storage_error="" if storage.failing_since is None else str(storage.last_error),
            decision=self.decision.compute_percentiles(),
            answer=self.answer.compute_percentiles(),
            sampling=self.sampling.compute_percentiles(),
        )
