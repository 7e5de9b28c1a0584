"""PruneDecider: decides from evaluations whether a trial of a study is pruned."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from optuna.trial import TrialState

from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.evaluations import OpenEvaluations
from trialbus_services.optimizer.pruning.study_pruner import StudyPruner
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
        self._pruner = StudyPruner(spec, recorder.study, recorder.get_trial)
        self._metric = self._pruner.metric
        self._metrics = frozenset({*spec.metrics, self._metric})
        self._nan = spec.nan
        self._recorder = recorder
        self._evaluations = evaluations

    def load_trials(self, open_numbers: Collection[int]) -> None:
        """Load the trials of the study, before the first decision.

        Args:
            open_numbers: Numbers of the trials that are open as far as the log was read. Of these
                the evaluations count: the storage may be ahead of the log, and is thinned.
        """
        self._pruner.load_trials(
            self._recorder.study.get_trials(deepcopy=False),
            {n: self._evaluations.get_curve(n, self._metric) for n in open_numbers},
        )

    def select_metrics(self, event: events.EvaluationComplete) -> Mapping[str, float]:
        """Return the metrics of an evaluation that count by the study's rule for NaN."""
        if self._nan != "ignore":
            return event.metrics
        return {
            name: value
            for name, value in event.metrics.items()
            if math.isfinite(value) or name not in self._metrics
        }

    def add(self, event: events.EvaluationComplete) -> Mapping[str, float]:
        """Add an evaluation and return the metrics that count by the study's rule for NaN."""
        metrics = self.select_metrics(event)
        if self._evaluations.add(event, metrics):
            self._begin_attempt(event.trial, event.step)
        return metrics

    def _begin_attempt(self, number: int, first_step: int) -> None:
        """Let the pruner and the storage drop what earlier attempts reported from a step on."""
        self._recorder.drop_values(number, first_step)
        for key in self._pruner.drop_values(number, first_step):
            self._recorder.drop_system_attr(number, key)

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
