"""What a report says in words and numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

ERROR = "trialbus:error"
WORKER = "trialbus:worker"
SLOT = "trialbus:slot"
ATTEMPT = "trialbus:attempt"
STATE = "trialbus:state"


@dataclass(frozen=True)
class Facts:
    """A study in words and numbers, ready to be shown.

    Attributes:
        best: The best trial, or the Pareto front; empty without a complete trial.
        counts: Number of trials by state, as `state_of` calls them.
        wall: From the first trial's start to the last one's end.
        compute: Sum of the durations of all trials.
        saved: Share of steps, from 0 to 1, that pruning saved: the pruned trials' steps beside the
            median number of steps of complete ones. None where it cannot be told.
    """

    name: str
    metrics: list[str]
    directions: list[str]
    best: list[FrozenTrial]
    counts: dict[str, int]
    wall: timedelta | None
    compute: timedelta
    saved: float | None
    errors: list[tuple[int, str]]


def gather(
    study: optuna.Study, trials: Sequence[FrozenTrial], metrics: Sequence[str] | None
) -> Facts:
    """Gather the facts of a study from its trials, read once by the caller."""
    count = Counter(map(state_of, trials))
    begun = [trial.datetime_start for trial in trials if trial.datetime_start]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    return Facts(
        name=study.study_name,
        metrics=list(metrics or [f"objective {i}" for i in range(len(study.directions))]),
        directions=[direction.name.lower() for direction in study.directions],
        best=_best(study, count["complete"]),
        counts={name: count[name] for name in [*(s.name.lower() for s in TrialState), "lost"]},
        wall=max(ended) - min(begun) if begun and ended else None,
        compute=sum((trial.duration for trial in trials if trial.duration), timedelta()),
        saved=_saved(trials),
        errors=[
            (t.number, str(t.user_attrs.get(ERROR, "")))
            for t in trials
            if t.state == TrialState.FAIL
        ],
    )


def rows(
    trials: Sequence[FrozenTrial], metrics: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Return the names of the columns of the table of trials, and a row for each."""
    params = sorted({name for trial in trials for name in trial.params})
    header = ["trial", "state", *metrics, *params, "steps", "seconds", "worker", "slot", "attempt"]
    return header, [
        [
            trial.number,
            state_of(trial),
            *_values(trial, len(metrics)),
            *(trial.params.get(name) for name in params),
            len(trial.intermediate_values) or None,
            round(trial.duration.total_seconds(), 2) if trial.duration else None,
            trial.user_attrs.get(WORKER),
            trial.user_attrs.get(SLOT),
            trial.user_attrs.get(ATTEMPT),
        ]
        for trial in trials
    ]


def state_of(trial: FrozenTrial) -> str:
    """Return Optuna's state of a trial in lower case; `lost` if it failed with its trainer."""
    lost = trial.state is TrialState.FAIL and trial.user_attrs.get(STATE) == "lost"
    return "lost" if lost else trial.state.name.lower()


def _best(study: optuna.Study, n_complete: int) -> list[FrozenTrial]:
    if not n_complete:
        return []
    if len(study.directions) > 1:
        return study.best_trials
    try:
        return [study.best_trial]
    except ValueError:  # no complete trial is feasible
        return []


def _saved(trials: Sequence[FrozenTrial]) -> float | None:
    complete = [len(t.intermediate_values) for t in trials if t.state == TrialState.COMPLETE]
    pruned = [len(t.intermediate_values) for t in trials if t.state == TrialState.PRUNED]
    if not pruned or not any(complete):
        return None
    whole = median(complete)
    done = sum(complete) + sum(pruned)
    saved = sum(max(0.0, whole - steps) for steps in pruned)
    return saved / (done + saved)


def _values(trial: FrozenTrial, count: int) -> list[float | None]:
    values = trial.values or [None] * count
    return [None if value is None or math.isnan(value) else value for value in values]
