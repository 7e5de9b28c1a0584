"""PruneDecider: decides from evaluations whether a trial of a study is pruned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.evaluations import OpenEvaluations
from trialbus_services.optimizer.pruning import StudyPruner
from trialbus_services.optimizer.study_recorder import StudyRecorder


class PruneDecider:
    """Decides by the study's rule for NaN and by the study's pruner.

    Args:
        spec: Specification of the study.
        recorder: Record of the study, with the trials that ended.
        evaluations: Evaluations of the open trials.
    """

    def __init__(
        self, spec: StudySpec, recorder: StudyRecorder, evaluations: OpenEvaluations
    ) -> None:
        trials = recorder.study.get_trials(deepcopy=False)
        self._pruner = StudyPruner(spec, recorder.study, trials, recorder.get_trial)
        self._metric = self._pruner.metric
        self._metrics = frozenset({*spec.metrics, self._metric})
        self._nan = spec.nan
        self._recorder = recorder
        self._evaluations = evaluations

    def begin(self, trial: FrozenTrial) -> None:
        """Begin an attempt of a trial: forget the evaluations of earlier attempts."""
        self._evaluations.forget(trial.number)
        self._pruner.begin(trial)

    def add(self, event: events.EvaluationComplete) -> Mapping[str, float]:
        """Add an evaluation and return the metrics that count by the study's rule for NaN."""
        metrics = event.metrics
        if self._nan == "ignore":
            metrics = {
                name: value
                for name, value in metrics.items()
                if math.isfinite(value) or name not in self._metrics
            }
        self._evaluations.add(event.trial, event.step, metrics, self._metrics)
        return metrics

    def restore(self, event: events.EvaluationComplete) -> None:
        """Add an evaluation from before a restart, without deciding again."""
        value = self.add(event).get(self._metric)
        if value is not None:
            self._pruner.restore(event.trial, event.step, value)

    def decide(self, number: int, step: int, metrics: Mapping[str, float]) -> str | None:
        """Return the reason to prune a trial after an evaluation; None to let the trial go on."""
        if self._nan == "prune":
            for name in self._metrics & metrics.keys():
                if not math.isfinite(metrics[name]):
                    return f"step {step}: {name} is {metrics[name]:g} (study.nan=prune)"
        value = metrics.get(self._metric)
        if value is None:
            return None
        is_pruned = self._pruner.report(number, step, value)
        for key, attribute in self._pruner.pop_attributes(number).items():
            self._recorder.record_system_attr(number, key, attribute)
        return self._pruner.explain(number) if is_pruned else None

    def make_curve_attributes(self, number: int) -> dict[str, Any]:
        """Return the user attributes that keep a trial's curve of another metric."""
        return self._pruner.make_curve_attributes(self._evaluations.get_curve(number, self._metric))

    def finish(self, number: int, state: TrialState) -> None:
        """Add a finished trial to the trials with which the pruner compares open trials."""
        self._pruner.finish(number, state)
        self._evaluations.forget(number)
