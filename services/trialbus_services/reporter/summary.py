"""What a report says in words and numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.attributes import ERROR, ORIGIN, SPEC, STATE, THINNED
from trialbus_services.reporter.snapshot import Snapshot, curve

_NO_REASON = "no reason was recorded"


@dataclass(frozen=True)
class Saved:
    """What pruning saved, had every pruned trial gone on for as long as the median complete one.

    Attributes:
        share: Of all steps, from 0 to 1.
        time: Of computing; starting up, which pruning does not save, is not in it.
    """

    share: float
    time: timedelta


@dataclass(frozen=True)
class Failure:
    """Trials that failed in the same way.

    Attributes:
        reason: Last line of their error.
        text: The whole error of the first of them, with its traceback.
        trials: Their numbers.
    """

    reason: str
    text: str
    trials: list[int]


@dataclass(frozen=True)
class Facts:
    """A study in words and numbers, ready to be shown.

    Attributes:
        best: The best feasible trial, or the Pareto front; empty without one.
        counts: Number of trials by state, as `state_of` calls them; none that is zero.
        begun: When the first trial started.
        wall: From then to the last one's end.
        compute: Sum of the durations of all trials.
        saved: None where it cannot be told.
        config: What the study was run with.
        origin: Further facts about the run: `command`, `git` and `versions`, each where known.
    """

    name: str
    metrics: list[str]
    directions: list[str]
    best: list[FrozenTrial]
    counts: dict[str, int]
    begun: datetime | None
    wall: timedelta | None
    compute: timedelta
    saved: Saved | None
    failures: list[Failure]
    config: Mapping[str, Any] | None
    origin: Mapping[str, Any]

    @property
    def n_trials(self) -> int:
        """Number of all trials."""
        return sum(self.counts.values())


def gather(study: Snapshot, config: Mapping[str, Any] | None = None) -> Facts:
    """Gather the facts of a study.

    Args:
        study: Any Optuna study; what trialbus noted in it is used where it is there.
        config: What the study was run with; None looks for it in the study.
    """
    trials = study.recorded
    count = Counter(map(state_of, trials))
    begun = min((t.datetime_start for t in trials if t.datetime_start), default=None)
    ended = max((t.datetime_complete for t in trials if t.datetime_complete), default=None)
    attributes = study.user_attrs
    origin = _mapping(attributes.get(ORIGIN))
    return Facts(
        name=study.study_name,
        metrics=study.metrics,
        directions=[direction.name.lower() for direction in study.directions],
        best=study.best,
        counts={
            name: count[name]
            for name in ("complete", "pruned", "fail", "lost", "running", "waiting")
            if count[name]
        },
        begun=begun,
        wall=ended - begun if begun and ended else None,
        compute=sum((trial.duration for trial in trials if trial.duration), timedelta()),
        saved=_saved(trials),
        failures=_failures(trials),
        config=config or _mapping(origin.get("config")) or _mapping(attributes.get(SPEC)) or None,
        origin=origin,
    )


def state_of(trial: FrozenTrial) -> str:
    """Return Optuna's state of a trial in lower case; `lost` if it failed with its trainer."""
    lost = trial.state is TrialState.FAIL and trial.user_attrs.get(STATE) == "lost"
    return "lost" if lost else trial.state.name.lower()


def _saved(trials: Sequence[FrozenTrial]) -> Saved | None:
    complete = [_steps(t) for t in trials if t.state is TrialState.COMPLETE]
    pruned = [t for t in trials if t.state is TrialState.PRUNED]
    if not pruned or not any(complete):
        return None
    whole = median(complete)
    steps = [_steps(trial) for trial in pruned]
    saved = sum(max(0.0, whole - n) for n in steps)
    lengths = [t.duration for t in trials if t.duration and t.state is TrialState.COMPLETE]
    # In seconds: what a median of durations is has no type.
    length = median(each.total_seconds() for each in lengths) if lengths else 0.0
    time_s = sum(max(0.0, length - t.duration.total_seconds()) for t in pruned if t.duration)
    share = saved / (sum(complete) + sum(steps) + saved)
    return Saved(share, timedelta(seconds=time_s))


def _steps(trial: FrozenTrial) -> int:
    """Return how many steps a trial reported; a long curve may be recorded in part."""
    steps = curve(trial)
    if THINNED in trial.user_attrs and len(steps) > 1:
        return max(steps) - min(steps) + 1
    return len(steps)


def _failures(trials: Sequence[FrozenTrial]) -> list[Failure]:
    """Return the failed trials by the last line of their error, the most frequent first."""
    texts: dict[str, str] = {}
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for trial in trials:
        if trial.state is not TrialState.FAIL:
            continue
        text = str(trial.user_attrs.get(ERROR) or _NO_REASON)
        reason = text.strip().splitlines()[-1].strip() if text.strip() else _NO_REASON
        texts.setdefault(reason, text)
        numbers[reason].append(trial.number)
    found = [Failure(reason, text, numbers[reason]) for reason, text in texts.items()]
    return sorted(found, key=lambda failure: -len(failure.trials))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]
