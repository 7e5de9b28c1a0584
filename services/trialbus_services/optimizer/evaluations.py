"""Evaluations of the open trials of a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class OpenEvaluations:
    """Evaluations of the open trials of a study, by the number of the trial."""

    #: Values by metric and step, of the metrics that the study looks at.
    curves: dict[int, dict[str, dict[int, float]]] = field(
        default_factory=dict[int, dict[str, dict[int, float]]]
    )
    #: The newest value of every metric.
    last: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    #: Trials that were told to stop.
    pruned: set[int] = field(default_factory=set[int])

    def take(
        self, number: int, step: int, metrics: Mapping[str, float], watched: frozenset[str]
    ) -> None:
        """Take in an evaluation; curves are kept of the metrics `watched`."""
        curves = self.curves.setdefault(number, defaultdict(dict))
        for metric in watched & metrics.keys():
            curves[metric][step] = metrics[metric]
        self.last.setdefault(number, {}).update(metrics)

    def curve(self, number: int, metric: str) -> dict[int, float]:
        """Return the values of a metric by step."""
        return self.curves.get(number, {}).get(metric, {})

    def forget(self, number: int) -> None:
        """Forget a trial that ended, or begins again."""
        self.curves.pop(number, None)
        self.last.pop(number, None)
        self.pruned.discard(number)
