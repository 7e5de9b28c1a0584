"""Snapshot of a study: all trials are read once, for every figure."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Container, Iterable, Sequence
from datetime import timedelta
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.attributes import PREFIX, RAN, SPEC
from trialbus_services.optimizer.curve_attributes import read_curve

_LONGEST_ATTRIBUTE = 80


class Snapshot(optuna.Study):
    """Snapshot of a study, so that all figures of a report show the same trials.

    Optuna's figures each read (and most copy) all trials; with ten thousand of them that is most
    of a report's time. Their hover texts show all user attributes: here they are the user's short
    ones, without those that trialbus keeps for itself.

    Args:
        study: The study; it is only read.
        metrics: Name of each objective; None looks for them in the study, and numbers them at last.
        name: What it is called in figures, if not by its own name.

    Attributes:
        recorded: All trials, with all their attributes.
        metrics: Name of each objective.

    Example:
        >>> study = optuna.create_study(study_name="digits")  # doctest: +SKIP
        >>> Snapshot(study).best  # doctest: +SKIP
        []
    """

    def __init__(
        self,
        study: optuna.Study,
        metrics: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        self.__setstate__(study.__getstate__())
        self.study_name = name or study.study_name
        self.metrics = list(metrics or _read_metrics(study))
        self.recorded = study.get_trials(deepcopy=False)
        self._trials = [_simplify(trial) for trial in self.recorded]

    def get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - as Optuna has it
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials without copying, since no figure changes a trial."""
        return [trial for trial in self._trials if states is None or trial.state in states]

    def complete_trials(self) -> list[FrozenTrial]:
        """Return the complete trials."""
        return self.get_trials(states=(TrialState.COMPLETE,))

    @property
    def metric_names(self) -> list[str] | None:
        """Names of the objectives, for Optuna's figures."""
        return self.metrics

    @property
    def best(self) -> list[FrozenTrial]:
        """The best feasible trial, or the Pareto front; empty without a complete trial."""
        if len(self.directions) > 1:
            return self.best_trials
        sign = -1 if self.directions[0] is StudyDirection.MAXIMIZE else 1
        feasible = [trial for trial in self.complete_trials() if is_feasible(trial)]
        return [min(feasible, key=lambda trial: sign * trial.values[0])] if feasible else []

    def sample(self, most: int, keep: Iterable[FrozenTrial] = ()) -> Snapshot:
        """Return a snapshot with `most` of the complete trials, and the trials of `keep`."""
        return self.with_trials(sample_evenly(self.complete_trials(), most, keep))

    def with_trials(self, trials: Sequence[FrozenTrial]) -> Snapshot:
        """Return a snapshot with the given trials only."""
        snapshot = copy.copy(self)
        snapshot._trials = list(trials)  # noqa: SLF001 - of this class
        return snapshot


def sample_evenly(
    trials: Sequence[FrozenTrial], most: int, keep: Iterable[FrozenTrial] = ()
) -> list[FrozenTrial]:
    """Return at most `most` trials, evenly spaced, and the trials of `keep`, in order."""
    if len(trials) <= most:
        return list(trials)
    chosen = {trials[i * len(trials) // most].number for i in range(most)}
    chosen |= {trial.number for trial in keep}
    return [trial for trial in trials if trial.number in chosen]


def get_curve(trial: FrozenTrial) -> dict[int, float]:
    """Return the reported values of a trial by step.

    These are the intermediate values. A trial of several objectives has none in Optuna; trialbus
    keeps the metric that drives the pruning in a user attribute.
    """
    if trial.intermediate_values:
        return trial.intermediate_values
    return read_curve(trial.user_attrs)


def compute_run_time(trial: FrozenTrial) -> timedelta | None:
    """Return how long a trial ran, without the time between its attempts; None before its end."""
    ran_s = trial.user_attrs.get(RAN)
    return trial.duration if ran_s is None else timedelta(seconds=ran_s)


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether a trial satisfies all constraints; a trial without constraints does."""
    return all(violation <= 0 for violation in trial.constraints.values())


def is_finite(trial: FrozenTrial) -> bool:
    """Return whether all values of a complete trial are finite."""
    return all(math.isfinite(value) for value in trial.values)


def _read_metrics(study: optuna.Study) -> list[str]:
    """Return the name of each objective: Optuna's, trialbus's, or a number."""
    n = len(study.directions)
    spec: dict[str, Any] = study.user_attrs.get(SPEC) or {}
    objectives: list[dict[str, Any]] = spec.get("objectives") or []
    if study.metric_names:
        return study.metric_names
    if len(objectives) == n:
        return [objective["metric"] for objective in objectives]
    return ["objective"] if n == 1 else [f"objective {i}" for i in range(n)]


def _simplify(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy of a trial for figures: without long attributes, lists and mappings as text."""
    structured = [name for name, value in trial.params.items() if isinstance(value, list | dict)]
    if not (trial.user_attrs or structured):
        return trial
    visible = copy.copy(trial)
    visible.user_attrs = {k: v for k, v in trial.user_attrs.items() if _is_short(k, v)}
    if structured:  # Optuna's figures and importances need values that can be hashed
        texts = {name: _format_choice(trial.params[name]) for name in structured}
        distributions = {
            name: CategoricalDistribution([*map(_format_choice, distribution.choices)])
            for name, distribution in trial.distributions.items()
            if name in texts and isinstance(distribution, CategoricalDistribution)
        }
        visible.params = trial.params | texts
        visible.distributions = trial.distributions | distributions
    return visible


def _format_choice(choice: Any) -> str:
    return json.dumps(choice, ensure_ascii=False, default=str)


def _is_short(name: str, value: Any) -> bool:
    return not name.startswith(PREFIX) and len(str(value)) <= _LONGEST_ATTRIBUTE
