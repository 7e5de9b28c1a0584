"""Evaluations of the open trials of a study, over all attempts of a trial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from trialbus.messages import events


@dataclass
class TrialEvaluations:
    """Evaluations of an open trial that count: of earlier attempts, what the newest resumed from.

    A pure fold over the evaluations of the trial: an attempt takes over the steps before its own
    first step, and what earlier attempts reported from there on is dropped. An attempt without a
    report takes over everything.
    """

    attempt: int
    """Attempt that reported last."""
    curves: defaultdict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    """Values by metric and step, of the watched metrics."""
    newest: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    """Highest step of every metric, and the value at that step."""
    is_pruned: bool = False
    """Whether the attempt was told to stop."""

    def begin_attempt(self, attempt: int, first_step: int) -> None:
        """Drop what earlier attempts reported at the first step of a new attempt, and later."""
        self.attempt = attempt
        self.is_pruned = False
        for metric, curve in list(self.curves.items()):
            self.curves[metric] = {s: value for s, value in curve.items() if s < first_step}
        for metric, (step, _) in list(self.newest.items()):
            if step >= first_step:
                del self.newest[metric]
                if curve := self.curves.get(metric):
                    last = max(curve)
                    self.newest[metric] = last, curve[last]


class OpenEvaluations:
    """Evaluations of the open trials of a study, by the number of the trial.

    Args:
        watched: Metrics whose curves are kept; of others, only the newest value is.
    """

    def __init__(self, watched: frozenset[str]) -> None:
        self.watched = watched
        self._trials: dict[int, TrialEvaluations] = {}

    def take_over(self, before: OpenEvaluations) -> bool:
        """Take over the evaluations of the study that ran before, if they have every curve."""
        if not self.watched <= before.watched:
            return False
        self._trials = before._trials
        return True

    def add(self, event: events.EvaluationComplete, metrics: Mapping[str, float]) -> bool:
        """Add an evaluation; a later value of the same step replaces the earlier.

        Args:
            event: The evaluation, of the running attempt of the trial.
            metrics: The metrics of the event that count.

        Returns:
            Whether the event is the first of another attempt, which dropped earlier evaluations.
        """
        trial = self._trials.get(event.trial)
        is_another_attempt = False
        if trial is None:
            trial = self._trials[event.trial] = TrialEvaluations(event.attempt)
        elif trial.attempt != event.attempt:
            trial.begin_attempt(event.attempt, event.step)
            is_another_attempt = True
        step, newest = event.step, trial.newest
        for metric, value in metrics.items():
            if metric in self.watched:
                trial.curves[metric][step] = value
            if metric not in newest or step >= newest[metric][0]:
                newest[metric] = step, value
        return is_another_attempt

    def get_curves(self, number: int) -> Mapping[str, dict[int, float]]:
        """Return the values of a trial by metric and step."""
        trial = self._trials.get(number)
        return {} if trial is None else trial.curves

    def get_curve(self, number: int, metric: str) -> dict[int, float]:
        """Return the values of a metric by step."""
        return self.get_curves(number).get(metric, {})

    def get_newest(self, number: int) -> dict[str, float]:
        """Return the value of every metric at the metric's highest step."""
        trial = self._trials.get(number)
        return {} if trial is None else {m: value for m, (_, value) in trial.newest.items()}

    def has_metric(self, metric: str) -> bool:
        """Return whether an open trial has a value of a metric."""
        return any(metric in trial.newest for trial in self._trials.values())

    def mark_pruned(self, number: int, attempt: int) -> bool:
        """Mark an attempt as told to stop; return False for an attempt that is marked already."""
        trial = self._trials.get(number)
        if trial is None or trial.attempt != attempt or trial.is_pruned:
            return False
        trial.is_pruned = True
        return True

    def forget(self, number: int) -> None:
        """Forget the evaluations of a trial that ended."""
        self._trials.pop(number, None)
