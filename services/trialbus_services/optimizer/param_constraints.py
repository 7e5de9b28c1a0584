"""Constraints over params alone, which keep a trial from being handed out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trialbus.errors import SpecError
from trialbus.study.search_space import CategoricalParam, Param
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.constraints import Constraint

_ROUNDING = 1e-12  # 0.1 + 0.2 meets the constraint `<= 0.3`


@dataclass(frozen=True)
class Constraints:
    """The constraints of a study."""

    of_params: list[Constraint]
    """Constraints over params alone: no trial that violates one is handed out."""
    of_metrics: list[Constraint]
    """Constraints over at least one metric, which are judged at the end of a trial."""
    space: Mapping[str, Param]
    """Search space of the study; empty without constraints."""

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return values in place of the labels that the storage has of params."""
        return {
            name: self.space[name].decode(value)
            for name, value in stored.items()
            if name in self.space
        }

    def list_applicable(self, params: Mapping[str, Any]) -> list[Constraint]:
        """Return the constraints over metrics without those on a param that a trial lacks."""
        absent = self.space.keys() - params.keys()
        return [c for c in self.of_metrics if not c.names & absent]

    def find_violated(self, params: Mapping[str, Any]) -> Constraint | None:
        """Return the first constraint over params alone that the params violate, or None.

        A constraint with a param that is not among the params does not apply. A result that is not
        finite, as of a division by zero, violates the constraint.
        """
        params = self.decode(params) if self.of_params else {}
        for constraint in self.of_params:
            if not constraint.names <= params.keys():
                continue
            scale = max(abs(params[name]) for name in constraint.names)
            try:
                violation = constraint.compute_violation({}, params)
            except ValueError:
                return constraint
            if violation > _ROUNDING * scale:
                return constraint
        return None


def parse_constraints(spec: StudySpec) -> Constraints:
    """Parse the constraints of a study.

    A name that is a param of the study is the param; every other name is a metric.

    Raises:
        SpecError: A constraint is malformed, names a param without numbers, or a name that is both
            a param and a metric of the study.
    """
    constraints = [
        Constraint(f"study.constraints[{i}]", text) for i, text in enumerate(spec.constraints)
    ]
    space = spec.space if constraints else {}
    metrics = {*spec.metrics, *([spec.prune_by.metric] if spec.prune_by else [])}
    for constraint in constraints:
        for name in sorted(constraint.names & space.keys()):
            if name in metrics:
                raise SpecError(
                    constraint.key,
                    f"{constraint.text!r}: {name} is a param and a metric of the study "
                    "(expected another name for one of them)",
                )
            param = space[name]
            if isinstance(param, CategoricalParam):
                choices = [param.decode(label) for label in param.labels]
                wrong = [choice for choice in choices if not isinstance(choice, int | float)]
                if wrong:
                    raise SpecError(
                        constraint.key,
                        f"{constraint.text!r}: the param {name} has the choice {wrong[0]!r} "
                        "(expected params with numbers only)",
                    )
    return Constraints(
        of_params=[c for c in constraints if c.names <= space.keys()],
        of_metrics=[c for c in constraints if not c.names <= space.keys()],
        space=space,
    )
