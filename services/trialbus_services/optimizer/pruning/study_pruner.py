"""StudyPruner: prunes the trials of a study by the metric that the study names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.curve_attributes import read_curve, write_curve
from trialbus_services.optimizer.pruning.metric_study import MetricStudy
from trialbus_services.optimizer.pruning.pruning_decisions import build_pruning


class StudyPruner:
    """Decides which trials of a study are pruned.

    By default the pruner judges the objective, whose curve is in Optuna's intermediate values. The
    curve of another metric, or of a study with several objectives, is kept in a user attribute of
    each finished trial: samplers would take intermediate values for the objective, and with several
    objectives Optuna has none.

    Args:
        spec: Specification of the study.
        study: The study in the storage, with its pruner.
        trials: Trials of the study, numbered from 0.
        get_trial: Returns the trial with a number.
    """

    def __init__(
        self,
        spec: StudySpec,
        study: optuna.Study,
        trials: Sequence[FrozenTrial],
        get_trial: Callable[[int], FrozenTrial],
    ) -> None:
        objective = spec.objectives[0]
        judged = spec.pruned_by or objective
        #: Metric that the pruner judges.
        self.metric = judged.metric
        self._is_separate = spec.pruned_by is not None and (
            len(spec.objectives) > 1
            or (judged.metric, judged.direction) != (objective.metric, objective.direction)
        )
        self._study = study
        self._get_trial = get_trial
        maximize = judged.direction == "maximize"
        self._pruning = build_pruning(
            study.pruner, study_name=spec.name, maximize=maximize, ask=self._ask
        )
        if self._is_separate:
            trials = [_replace_curve(trial) for trial in trials]
        for trial in trials:
            self._pruning.load_trial(trial)
        self._metric_study = (
            MetricStudy(spec.name, study.pruner, trials, maximize=maximize)
            if self._is_separate and self._pruning.asks_pruner
            else None
        )

    def begin(self, trial: FrozenTrial) -> None:
        """Begin an attempt of a trial: forget the values of earlier attempts."""
        self._pruning.forget(trial.number)
        if self._metric_study:
            self._metric_study.begin(trial)

    def restore(self, number: int, step: int, value: float) -> None:
        """Add a value from before a restart, without deciding again."""
        if self._is_separate:
            if self._metric_study:
                self._metric_study.report(number, step, value)
            self._pruning.add_value(number, step, value)

    def report(self, number: int, step: int, value: float) -> bool:
        """Add a value of an open trial and return whether the trial is pruned."""
        if self._metric_study:
            self._metric_study.report(number, step, value)
        return self._pruning.report(number, step, value)

    def explain(self, number: int) -> str:
        """Return why a trial was just pruned: step, value, and what it was compared with.

        Example: `step 1: 0.243 < median 0.271 of 11 trials`.
        """
        by = f", by {type(self._study.pruner).__name__}" if self._pruning.asks_pruner else ""
        metric = f" ({self.metric})" if self._is_separate else ""
        return f"{self._pruning.explain(number)}{by}{metric}"

    def pop_attributes(self, number: int) -> dict[str, Any]:
        """Remove and return the system attributes that decisions added to a trial."""
        return self._pruning.pop_attributes(number)

    def make_curve_attributes(self, values: Mapping[int, float]) -> dict[str, Any]:
        """Return the user attributes that keep a finished trial's curve of another metric."""
        if not self._is_separate or not values:
            return {}
        return write_curve(values)

    def finish(self, number: int, state: TrialState) -> None:
        """Add a trial that ended."""
        self._pruning.finish(number, state)
        if self._metric_study:
            self._metric_study.finish(number, state)

    def _ask(self, number: int) -> bool:
        if self._metric_study:
            return self._metric_study.prune(number)
        return self._study.pruner.prune(self._study, self._get_trial(number))


def _replace_curve(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy of a trial, with the curve of the user attribute as intermediate values."""
    replaced = copy.copy(trial)
    replaced.intermediate_values = read_curve(trial.user_attrs)
    return replaced
