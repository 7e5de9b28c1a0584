"""Verdict: the event `trial_closed`, built from what the storage has of a trial that ended."""

from __future__ import annotations

from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from trialbus.messages import events
from trialbus_services.optimizer.attributes import ATTEMPT, CAUSE, CAUSES, ERROR, PRUNE_REASON

_STATES: dict[TrialState, Literal["complete", "pruned", "failed"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def build_verdict(study: str, trial: FrozenTrial, counts: events.TrialCounts) -> events.TrialClosed:
    """Build the event that publishes how a trial is recorded.

    Args:
        study: Name of the study.
        trial: The trial, which has ended.
        counts: Numbers of the study's finished trials.
    """
    attributes = trial.user_attrs
    attempt: int = attributes.get(ATTEMPT, 0)
    is_complete = trial.state is TrialState.COMPLETE
    return events.TrialClosed(
        study=study,
        trial=trial.number,
        attempt=attempt,
        state=_STATES[trial.state],
        values=list(trial.values) if is_complete else None,
        cause=attributes.get(CAUSE),
        error=attributes.get(ERROR),
        reason=attributes.get(PRUNE_REASON, ""),
        is_feasible=is_feasible(trial),
        attempts=attempt + 1,
        causes=attributes.get(CAUSES, []),
        counts=counts,
    )


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether a trial meets all constraints of its study."""
    return all(violation <= 0 for violation in trial.constraints.values())
