"""A study as it was at one moment, for figures that would each read it again."""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.attributes import CURVE, PREFIX, SPEC

_LONGEST_ATTRIBUTE = 80


class Snapshot(optuna.Study):
    """A study whose trials were read once, so that all figures of a report agree.

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
        self.metrics = list(metrics or _metrics(study))
        self.recorded = study.get_trials(deepcopy=False)
        self._shown = [_shown(trial) for trial in self.recorded]

    def get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - as Optuna has it
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials, never copied: figures do not change them."""
        return [trial for trial in self._shown if states is None or trial.state in states]

    def complete(self) -> list[FrozenTrial]:
        """Return the complete trials."""
        return self.get_trials(states=(TrialState.COMPLETE,))

    @property
    def metric_names(self) -> list[str] | None:
        """Names of the objectives, by which Optuna's figures call them."""
        return self.metrics

    @property
    def best(self) -> list[FrozenTrial]:
        """The best feasible trial, or the Pareto front; empty without one."""
        if len(self.directions) > 1:
            return self.best_trials
        sign = -1 if self.directions[0] is StudyDirection.MAXIMIZE else 1
        feasible = [trial for trial in self.complete() if is_feasible(trial)]
        return [min(feasible, key=lambda trial: sign * trial.values[0])] if feasible else []

    def sample(self, most: int, keep: Iterable[FrozenTrial] = ()) -> Snapshot:
        """Return this study with `most` of its complete trials, and those to keep."""
        return self.only(evenly(self.complete(), most, keep))

    def only(self, trials: Sequence[FrozenTrial]) -> Snapshot:
        """Return this study with some of its trials."""
        found = copy.copy(self)
        found._shown = list(trials)  # noqa: SLF001 - of this class
        return found


def evenly(
    trials: Sequence[FrozenTrial], most: int, keep: Iterable[FrozenTrial] = ()
) -> list[FrozenTrial]:
    """Return at most `most` trials, evenly spaced, and those to keep, in their order."""
    if len(trials) <= most:
        return list(trials)
    chosen = {trials[i * len(trials) // most].number for i in range(most)}
    chosen |= {trial.number for trial in keep}
    return [trial for trial in trials if trial.number in chosen]


def curve(trial: FrozenTrial) -> dict[int, float]:
    """Return what a trial reported, by step: its intermediate values, or what prunes it.

    Several objectives have no intermediate values in Optuna; trialbus keeps the metric that drives
    their pruning in a user attribute.
    """
    if trial.intermediate_values:
        return trial.intermediate_values
    aside: dict[str, float] = trial.user_attrs.get(CURVE) or {}
    return {int(step): value for step, value in aside.items()}


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether a trial keeps all its constraints; one without any does."""
    return all(violation <= 0 for violation in trial.constraints.values())


def is_finite(trial: FrozenTrial) -> bool:
    """Return whether all values of a complete trial are finite."""
    return all(math.isfinite(value) for value in trial.values)


def _metrics(study: optuna.Study) -> list[str]:
    """Return the name of each objective: Optuna's, trialbus's, or a number."""
    n = len(study.directions)
    spec: dict[str, Any] = study.user_attrs.get(SPEC) or {}
    objectives: list[dict[str, Any]] = spec.get("objectives") or []
    if study.metric_names:
        return study.metric_names
    if len(objectives) == n:
        return [objective["metric"] for objective in objectives]
    return ["objective"] if n == 1 else [f"objective {i}" for i in range(n)]


def _shown(trial: FrozenTrial) -> FrozenTrial:
    if not trial.user_attrs:
        return trial
    found = copy.copy(trial)
    found.user_attrs = {k: v for k, v in trial.user_attrs.items() if _is_short(k, v)}
    return found


def _is_short(name: str, value: Any) -> bool:
    return not name.startswith(PREFIX) and len(str(value)) <= _LONGEST_ATTRIBUTE
