"""Evaluations of the open trials of a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class OpenEvaluations:
    """Evaluations of the open trials of a study, by the number of the trial."""

    curves: dict[int, dict[str, dict[int, float]]] = field(
        default_factory=dict[int, dict[str, dict[int, float]]]
    )
    """Values by metric and step, of the objectives' metrics and the pruner's metric."""
    last: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    """Newest value of every metric."""
    pruned: set[int] = field(default_factory=set[int])
    """Numbers of the trials that were told to stop."""

    def add(
        self, number: int, step: int, metrics: Mapping[str, float], watched: frozenset[str]
    ) -> None:
        """Add an evaluation of a trial, and the points of the curves of the metrics `watched`."""
        curves = self.curves.setdefault(number, defaultdict(dict))
        for metric in watched & metrics.keys():
            curves[metric][step] = metrics[metric]
        self.last.setdefault(number, {}).update(metrics)

    def get_curve(self, number: int, metric: str) -> dict[int, float]:
        """Return the values of a metric by step."""
        return self.curves.get(number, {}).get(metric, {})

    def forget(self, number: int) -> None:
        """Forget the evaluations of a trial that ended, or begins a new attempt."""
        self.curves.pop(number, None)
        self.last.pop(number, None)
        self.pruned.discard(number)
