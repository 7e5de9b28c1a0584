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
        get_trial: Returns the trial with a number.
    """

    def __init__(
        self,
        spec: StudySpec,
        study: optuna.Study,
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
        self._metric_study = (
            MetricStudy(spec.name, study.pruner, get_trial, maximize=maximize)
            if self._is_separate and self._pruning.asks_pruner
            else None
        )

    def load_trials(
        self, trials: Sequence[FrozenTrial], open_curves: Mapping[int, Mapping[int, float]]
    ) -> None:
        """Load the trials of the study, before the first decision.

        Args:
            trials: Trials of the storage, numbered from 0.
            open_curves: Curves of the open trials, which count instead of the storage's.
        """
        if self._is_separate:
            trials = [_replace_curve(trial) for trial in trials]
        trials = [
            _reopen(trial, open_curves[trial.number]) if trial.number in open_curves else trial
            for trial in trials
        ]
        self._pruning.load_trials(trials, open_curves)
        if self._metric_study:
            self._metric_study.load_trials(trials)

    def drop_values(self, number: int, first_step: int) -> list[str]:
        """Drop the values of a trial from a step on, and return the system attributes to delete."""
        if self._metric_study:
            self._metric_study.drop_values(number, first_step)
        return self._pruning.drop_values(number, first_step)

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


def _reopen(trial: FrozenTrial, curve: Mapping[int, float]) -> FrozenTrial:
    """Return a running copy of a trial, with another curve."""
    reopened = copy.copy(trial)
    reopened.state, reopened.values = TrialState.RUNNING, None
    reopened.intermediate_values = dict(curve)
    return reopened


def _replace_curve(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy of a trial, with the curve of the user attribute as intermediate values."""
    replaced = copy.copy(trial)
    replaced.intermediate_values = read_curve(trial.user_attrs)
    return replaced
