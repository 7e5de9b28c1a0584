"""Outcome of a trial: the state, values and constraints that Optuna records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import TrialState

from trialbus.study.measured_constraints import convert_violation
from trialbus.study.retries import VerdictCause
from trialbus.study.spec import StudySpec
from trialbus.study.validation import find_nearest
from trialbus_services.optimizer.objective import (
    Curve,
    MissingValueError,
    compute_objective,
    parse_aggregation,
)
from trialbus_services.optimizer.param_constraints import parse_constraints
from trialbus_services.optimizer.trial_states import AttemptEnd


@dataclass(frozen=True)
class Outcome:
    """State, values and constraints of a trial that ended."""

    state: TrialState
    values: list[float] | None = None
    """Objective values of a complete trial; None for all others."""
    error: str | None = None
    """Error of a failed trial; None for all others."""
    cause: VerdictCause | None = None
    """Cause of a failed trial; None for all others."""
    constraints: dict[str, float] = field(default_factory=dict[str, float])
    """Violation by the text of the constraint; empty for a failed trial."""
    prune_reason: str = ""
    """Why a trial is pruned that nobody told to stop; empty for all others."""
    missing_metric: str | None = None
    """Metric of an objective that a failed trial never reported; None for all others."""

    @property
    def is_feasible(self) -> bool:
        """Whether the trial meets all constraints."""
        return all(violation <= 0 for violation in self.constraints.values())


_SILENT = (
    " (expected trial.report(step, {...}), or trainer.metrics={stdout: 'loss=(?P<loss>...)'} for a "
    "program that prints its metrics)"
)


class MissingMetricError(MissingValueError):
    """A trial that is to be complete never reported the metric of an objective.

    Args:
        metric: The metric.
        reported: Metrics that the trial reported.
    """

    def __init__(self, metric: str, reported: Iterable[str]) -> None:
        names = sorted(reported)
        near = find_nearest(metric, names)
        hint = f"; did you mean {near!r}?" if near else "" if names else _SILENT
        super().__init__(
            f"study.objective.metric {metric!r} was never reported; the trainer reported: "
            f"{', '.join(names) or 'nothing'}{hint}"
        )
        self.metric = metric


class _PrunedValueError(ValueError):
    """An objective value is not finite, and the study prunes such trials."""


class Judge:
    """Determines the outcomes of the trials of a study.

    Args:
        spec: Specification of the study.

    Raises:
        SpecError: An aggregation or a constraint of the study is malformed.
    """

    def __init__(self, spec: StudySpec) -> None:
        for i, objective in enumerate(spec.objectives):
            key = "study.objective" if len(spec.objectives) == 1 else f"study.objective[{i}]"
            parse_aggregation(objective.aggregate, objective.direction, key)
        self._spec = spec
        self._constraints = parse_constraints(spec)

    @property
    def metrics(self) -> frozenset[str]:
        """Metrics that the constraints need."""
        names = (constraint.names for constraint in self._constraints.of_metrics)
        return frozenset[str]().union(*names) - self._constraints.space.keys()

    def determine_outcome(
        self,
        end: AttemptEnd,
        curves: Mapping[str, Curve],
        last: Mapping[str, float],
        worst: Sequence[float] | None,
        params: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """Return the outcome of a trial.

        Args:
            end: End of the trial's last attempt.
            curves: Reported values by metric and step; at least of the objectives' metrics.
            last: Newest value of every metric.
            worst: Objective values that replace values that are not finite, with `study.nan=worst`.
            params: Params of the trial, for constraints over metrics and params.
        """
        params = self._constraints.decode(params or {})
        if end.state not in ("complete", "pruned"):
            error = end.error or "the trainer gave no reason"
            return Outcome(TrialState.FAIL, error=error, cause=end.cause or "exception")
        try:
            measured = {k: convert_violation(k, v) for k, v in end.constraints.items()}
            prune_reason = ""
            values: list[float] = []
            try:
                if end.state != "pruned":
                    values = self._compute_values(end, curves, last, worst)
            except _PrunedValueError as error:
                prune_reason = str(error)
            if end.state == "pruned" or prune_reason:
                known = self._compute_known_violations(last, params)
                return Outcome(
                    TrialState.PRUNED,
                    constraints={**measured, **known},
                    prune_reason=prune_reason,
                )
            constraints = measured | {
                c.text: c.compute_violation(last, params)
                for c in self._constraints.list_applicable(params)
            }
        except ValueError as error:
            return _fail(error, end.error)
        return Outcome(TrialState.COMPLETE, values, constraints=constraints)

    def _compute_known_violations(
        self, last: Mapping[str, float], params: Mapping[str, Any]
    ) -> dict[str, float]:
        """Return the violations of a pruned trial, without constraints on missing metrics."""
        violations: dict[str, float] = {}
        for constraint in self._constraints.list_applicable(params):
            try:
                violations[constraint.text] = constraint.compute_violation(last, params)
            except ValueError:
                continue
        return violations

    def _compute_values(
        self,
        end: AttemptEnd,
        curves: Mapping[str, Curve],
        last: Mapping[str, float],
        worst: Sequence[float] | None,
    ) -> list[float]:
        """Return the objective values.

        Raises:
            ValueError: A value is missing or wrong; a `_PrunedValueError` if the trial counts as
                pruned for it.
        """
        objectives = self._spec.objectives
        if end.values is not None and len(end.values) != len(objectives):
            raise ValueError(
                f"complete() gave {len(end.values)} values, study.objective has {len(objectives)}"
            )
        values: list[float] = []
        for i, objective in enumerate(objectives):
            value = end.values[i] if end.values is not None else None
            if value is None or (self._spec.nan == "ignore" and not math.isfinite(value)):
                value = compute_objective(curves.get(objective.metric, {}), objective)
            # With nan=ignore a metric may have been reported and not count.
            if value is None and objective.metric not in curves and self._spec.nan != "ignore":
                raise MissingMetricError(objective.metric, last)
            if value is None:
                raise MissingValueError(
                    f"study.objective.metric {objective.metric!r} has no value for aggregate "
                    f"{objective.aggregate!r}; the trainer reported: "
                    f"{', '.join(sorted(last)) or 'nothing'}"
                )
            if not math.isfinite(value):
                if self._spec.nan != "worst" or worst is None:
                    error = _PrunedValueError if self._spec.nan == "prune" else ValueError
                    raise error(
                        f"study.objective.metric {objective.metric!r} is {_format_value(value)} "
                        f"(study.nan={self._spec.nan})"
                    )
                value = worst[i]
            values.append(value)
        return values


def _fail(error: ValueError, noticed: str | None) -> Outcome:
    """Return the outcome of a trial whose reports are at fault.

    Args:
        error: What is wrong with the reports.
        noticed: What the worker noticed about the training.
    """
    text = f"{error}; {noticed}" if noticed else str(error)
    if not isinstance(error, MissingValueError):
        return Outcome(TrialState.FAIL, error=text, cause="bad_value")
    metric = error.metric if isinstance(error, MissingMetricError) else None
    return Outcome(TrialState.FAIL, error=text, cause="missing_metric", missing_metric=metric)


def _format_value(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:g}"
