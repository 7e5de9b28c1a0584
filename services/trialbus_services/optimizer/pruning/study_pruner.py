"""The pruner of one study: the metric that drives decisions, and where its curves are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import CURVE
from trialbus_services.optimizer.pruning.metric_study import MetricStudy
from trialbus_services.optimizer.pruning.pruning_decisions import build_pruning


class StudyPruner:
    """Decides which trials of a study are pruned.

    The metric is the study's objective, unless it says otherwise; its curves are then Optuna's
    intermediate values. Those of another metric, or of a study with several objectives, are kept
    aside, in a user attribute of each finished trial: samplers would take them for the objective,
    and Optuna has no place for them.

    Args:
        spec: The study.
        study: The same study in the storage, with its pruner.
        trials: Its trials, numbered one by one.
        find: Returns one of them by its number.
    """

    def __init__(
        self,
        spec: StudySpec,
        study: optuna.Study,
        trials: Sequence[FrozenTrial],
        find: Callable[[int], FrozenTrial],
    ) -> None:
        by = spec.pruned_by or spec.objectives[0]
        first = spec.objectives[0]
        self.metric = by.metric
        self._aside = spec.pruned_by is not None and (
            len(spec.objectives) > 1 or (by.metric, by.direction) != (first.metric, first.direction)
        )
        self._study = study
        self._find = find
        maximize = by.direction == "maximize"
        self._pruning = build_pruning(
            study.pruner, study_name=spec.name, maximize=maximize, ask=self._ask
        )
        if self._aside:
            trials = [_replace_curve(trial) for trial in trials]
        for trial in trials:
            self._pruning.load(trial)
        self._metric_study = (
            MetricStudy(spec.name, study.pruner, trials, maximize=maximize)
            if self._aside and self._pruning.asks
            else None
        )

    def begin(self, trial: FrozenTrial) -> None:
        """Note that a trial starts, or starts again."""
        self._pruning.forget(trial.number)
        if self._metric_study:
            self._metric_study.begin(trial)

    def restore(self, number: int, step: int, value: float) -> None:
        """Add a value from before a restart, which was decided upon then."""
        if self._aside:
            self._take(number, step, value)

    def report(self, number: int, step: int, value: float) -> bool:
        """Add a value and return whether the trial is to be pruned now."""
        if self._metric_study:
            self._metric_study.report(number, step, value)
        return self._pruning.report(number, step, value)

    def attributes(self, number: int) -> dict[str, Any]:
        """Return, once, the system attributes that a decision left on a trial."""
        return self._pruning.attributes(number)

    def curve(self, values: Mapping[int, float]) -> dict[str, Any]:
        """Return the user attributes that keep a finished trial's curve of another metric."""
        if not self._aside or not values:
            return {}
        return {CURVE: {str(step): value for step, value in sorted(values.items())}}

    def finish(self, number: int, state: TrialState) -> None:
        """Note that a trial ended."""
        self._pruning.finish(number, state)
        if self._metric_study:
            self._metric_study.finish(number, state)

    def _take(self, number: int, step: int, value: float) -> None:
        if self._metric_study:
            self._metric_study.report(number, step, value)
        self._pruning.take(number, step, value)

    def _ask(self, number: int) -> bool:
        if self._metric_study:
            return self._metric_study.prune(number)
        return self._study.pruner.prune(self._study, self._find(number))


def _replace_curve(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with the curve kept aside in the place of its intermediate values."""
    found = copy.copy(trial)
    curve: dict[str, float] = trial.user_attrs.get(CURVE, {})
    found.intermediate_values = {int(step): value for step, value in curve.items()}
    return found
