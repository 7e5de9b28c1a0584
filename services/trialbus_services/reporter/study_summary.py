"""Summary of a study: counts, times, the best trials, failures and savings by pruning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import msgspec
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.config.secrets import mask_secrets
from trialbus_services.optimizer.attributes import (
    CAUSE,
    ELAPSED,
    END,
    ERROR,
    ORIGIN,
    SPEC,
    STATE,
    THINNED,
)
from trialbus_services.optimizer.define_by_run import find_params
from trialbus_services.reporter.snapshot import Snapshot, compute_run_time, get_curve
from trialbus_services.views.notes import get_last_line

_NO_REASON = "no reason was recorded"
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class PruningSavings:
    """Estimated savings by pruning, with the median complete trial as the length of every trial."""

    share: float
    """Saved share of all steps, from 0 to 1."""

    time: timedelta
    """Saved compute time."""


@dataclass(frozen=True)
class Failure:
    """Trials that failed for the same cause with the same error, but for the numbers in it."""

    cause: str | None
    """Cause of the failure, as `trialbus:cause`; None for a trial of another program."""

    reason: str
    """Last line of the error of the first of the trials."""

    text: str
    """Whole error of the first of the trials, with the traceback."""

    trials: list[int]
    """Numbers of the trials."""


@dataclass(frozen=True)
class StudySummary:
    """Summary of a study, ready to be shown."""

    name: str
    """Name of the study."""

    metrics: list[str]
    """Name of each objective."""

    directions: list[str]
    """Direction of each objective, `minimize` or `maximize`."""

    best: list[FrozenTrial]
    """The best feasible trial, or the Pareto front; empty without a complete trial."""

    counts: dict[str, int]
    """Number of trials by state, as `get_state` returns it, without zeros."""

    started_at: datetime | None
    """Start of the first trial; None before there is one."""

    wall_time: timedelta | None
    """Time that a study of trialbus has run in all its submissions, once it has ended.

    Of any other study the time from the start of the first trial to the end of the last one; None
    before that.
    """

    compute_time: timedelta
    """Time that all attempts of all trials ran, in sum."""

    savings: PruningSavings | None
    """Savings by pruning; None without both pruned and complete trials that reported steps."""

    failures: list[Failure]
    """Failed trials by error, the most frequent first."""

    config: Mapping[str, Any] | None
    """Config of the study; None where it is not known."""

    origin: Mapping[str, Any]
    """Origin of the study: `command`, `git` and `versions`, each where known."""

    @property
    def n_trials(self) -> int:
        """Number of all trials."""
        return sum(self.counts.values())


def summarize_study(study: Snapshot, config: Mapping[str, Any] | None = None) -> StudySummary:
    """Summarize a study.

    Args:
        study: Any Optuna study; trialbus's attributes are used where the study has them.
        config: Config of the study; None takes the study's attributes.
    """
    trials = study.recorded
    count = Counter(map(get_state, trials))
    started_at = min((t.datetime_start for t in trials if t.datetime_start), default=None)
    ended_at = max((t.datetime_complete for t in trials if t.datetime_complete), default=None)
    attributes = study.user_attrs
    # Masked here, too, for studies of other programs and of earlier versions.
    origin = mask_secrets(_to_mapping(attributes.get(ORIGIN)))
    return StudySummary(
        name=study.study_name,
        metrics=study.metrics,
        directions=[direction.name.lower() for direction in study.directions],
        best=study.best,
        counts={
            name: count[name]
            for name in ("complete", "pruned", "fail", "lost", "running", "waiting")
            if count[name]
        },
        started_at=started_at,
        wall_time=_read_elapsed(attributes)
        or (ended_at - started_at if started_at and ended_at else None),
        compute_time=sum(filter(None, map(compute_run_time, trials)), timedelta()),
        savings=_estimate_savings(trials),
        failures=_group_failures(trials),
        config=_add_found_params(
            mask_secrets(
                config
                or _to_mapping(origin.get("config"))
                or _to_mapping(attributes.get(SPEC))
                or None
            ),
            trials,
        ),
        origin=origin,
    )


def _add_found_params(
    config: Mapping[str, Any] | None, trials: Sequence[FrozenTrial]
) -> Mapping[str, Any] | None:
    """Return a config with the params that trials asked for, where the study declares none."""
    study = _to_mapping((config or {}).get("study"))
    if config is None or not study.get("define_by_run"):
        return config
    params = msgspec.to_builtins(find_params(trials))
    return {**config, "study": {**study, "params": params}}


def get_state(trial: FrozenTrial) -> str:
    """Return the state of a trial in lower case; `lost` if the trainer was lost."""
    lost = trial.state is TrialState.FAIL and trial.user_attrs.get(STATE) == "lost"
    return "lost" if lost else trial.state.name.lower()


def _read_elapsed(attributes: Mapping[str, Any]) -> timedelta | None:
    """Return how long an ended study of trialbus has run; None for any other study."""
    elapsed_s = attributes.get(ELAPSED)
    if attributes.get(END) is None or not isinstance(elapsed_s, int | float):
        return None
    return timedelta(seconds=elapsed_s)


def _estimate_savings(trials: Sequence[FrozenTrial]) -> PruningSavings | None:
    complete = [_count_steps(t) for t in trials if t.state is TrialState.COMPLETE]
    pruned = [t for t in trials if t.state is TrialState.PRUNED]
    if not pruned or not any(complete):
        return None
    median_steps = median(complete)
    steps = [_count_steps(trial) for trial in pruned]
    saved = sum(max(0.0, median_steps - n) for n in steps)
    lengths = [
        length
        for trial in trials
        if trial.state is TrialState.COMPLETE and (length := compute_run_time(trial))
    ]
    # In seconds: what a median of durations is has no type.
    length = median(length.total_seconds() for length in lengths) if lengths else 0.0
    ran = filter(None, map(compute_run_time, pruned))
    time_s = sum(max(0.0, length - time.total_seconds()) for time in ran)
    share = saved / (sum(complete) + sum(steps) + saved)
    return PruningSavings(share, timedelta(seconds=time_s))


def _count_steps(trial: FrozenTrial) -> int:
    """Return the number of steps a trial reported; a long curve may be recorded in part."""
    steps = get_curve(trial)
    if THINNED in trial.user_attrs and len(steps) > 1:
        return max(steps) - min(steps) + 1
    return len(steps)


def _group_failures(trials: Sequence[FrozenTrial]) -> list[Failure]:
    """Group the failed trials by cause and last line of the error, the most frequent first."""
    failures: dict[tuple[str | None, str], Failure] = {}
    for trial in trials:
        if trial.state is not TrialState.FAIL:
            continue
        cause = trial.user_attrs.get(CAUSE)
        text = str(trial.user_attrs.get(ERROR) or _NO_REASON)
        reason = get_last_line(text)
        # Of the params of a trial, for example.
        kind = (cause, _NUMBER.sub("0", reason))
        failures.setdefault(kind, Failure(cause, reason, text, [])).trials.append(trial.number)
    return sorted(failures.values(), key=lambda failure: -len(failure.trials))


def _to_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]
