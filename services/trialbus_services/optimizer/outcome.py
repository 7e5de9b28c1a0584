"""What a trial that ended is to Optuna: its state, values and constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.constraints import Constraint
from trialbus_services.optimizer.objective import Curve, aggregation, value_of
from trialbus_services.optimizer.trial_states import AttemptEnd


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        values: Its objective values; None unless it is complete.
        error: Why it failed; None unless it did.
        constraints: How much each is violated; none if it failed.
    """

    state: TrialState
    values: list[float] | None = None
    error: str | None = None
    constraints: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def feasible(self) -> bool:
        """Whether all constraints are met."""
        return all(violation <= 0 for violation in self.constraints.values())


class Judge:
    """Tells what trials of a study are, from what they reported.

    Raises:
        SpecError: An aggregation or a constraint of the study is not one.
    """

    def __init__(self, spec: StudySpec) -> None:
        for i, objective in enumerate(spec.objectives):
            key = "study.objective" if len(spec.objectives) == 1 else f"study.objective[{i}]"
            aggregation(objective.aggregate, objective.direction, key)
        self._spec = spec
        self._constraints = [
            Constraint(f"study.constraints[{i}]", text) for i, text in enumerate(spec.constraints)
        ]

    def outcome(
        self,
        end: AttemptEnd,
        curves: Mapping[str, Curve],
        last: Mapping[str, float],
        worst: Sequence[float] | None,
    ) -> Outcome:
        """Return how a trial ended.

        Args:
            end: What its trainer, or its loss, says.
            curves: What it reported of the objectives, by metric and step.
            last: The newest value of every metric.
            worst: Values that stand in for those that are not finite, where the study says so.
        """
        if end.cause not in ("complete", "pruned"):
            return Outcome(TrialState.FAIL, error=end.error or "the trainer gave no reason")
        try:
            values = self._values(end, curves, last, worst) if end.cause != "pruned" else None
            if values is None:
                return Outcome(TrialState.PRUNED, constraints=self._known(last))
            constraints = {c.text: c.violation(last) for c in self._constraints}
        except ValueError as error:
            return Outcome(TrialState.FAIL, error=str(error))
        return Outcome(TrialState.COMPLETE, values, constraints=constraints)

    def _known(self, last: Mapping[str, float]) -> dict[str, float]:
        """Return the constraints of a pruned trial, as far as it reported them."""
        found: dict[str, float] = {}
        for constraint in self._constraints:
            try:
                found[constraint.text] = constraint.violation(last)
            except ValueError:
                continue
        return found

    def _values(
        self,
        end: AttemptEnd,
        curves: Mapping[str, Curve],
        last: Mapping[str, float],
        worst: Sequence[float] | None,
    ) -> list[float] | None:
        """Return the objective values; None if the trial counts as pruned."""
        objectives = self._spec.objectives
        given = end.values
        if given is not None and len(given) != len(objectives):
            raise ValueError(
                f"complete() gave {len(given)} values, study.objective has {len(objectives)}"
            )
        values: list[float] = []
        for i, objective in enumerate(objectives):
            value = given[i] if given is not None else None
            if value is None or (self._spec.nan == "ignore" and not math.isfinite(value)):
                value = value_of(curves.get(objective.metric, {}), objective)
            if value is None:
                raise ValueError(
                    f"study.objective.metric {objective.metric!r} has no value for aggregate "
                    f"{objective.aggregate!r}; the trainer reported: "
                    f"{', '.join(sorted(last)) or 'nothing'}"
                )
            if not math.isfinite(value):
                if self._spec.nan == "prune":
                    return None
                if self._spec.nan != "worst" or worst is None:
                    raise ValueError(
                        f"study.objective.metric {objective.metric!r} is {_shown(value)} "
                        f"(study.nan={self._spec.nan})"
                    )
                value = worst[i]
            values.append(value)
        return values


def _shown(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:g}"
