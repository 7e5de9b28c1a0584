"""Checks of enqueued params: constraints, and trials that had the same params before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trialbus.errors import SpecError
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.param_constraints import parse_constraints
from trialbus_services.optimizer.sampling.coverage import get_duplicate_policy
from trialbus_services.optimizer.sampling.points import PointSpace


def check_enqueued(spec: StudySpec) -> None:
    """Check that the enqueued params of a study meet the constraints over params.

    Raises:
        SpecError: Params violate a constraint.
    """
    for i, params in enumerate(spec.enqueue):
        violation = find_violation(spec, params)
        if violation is not None:
            raise SpecError(f"study.enqueue[{i}]", f"{params} violates {violation}")


def find_violation(spec: StudySpec, params: Mapping[str, Any]) -> str | None:
    """Return the constraint over params that enqueued params violate, or None."""
    violated = parse_constraints(spec).find_violated({**spec.fixed, **params})
    return None if violated is None else f"{violated.key} {violated.text!r}"


def find_earlier_trial(
    spec: StudySpec, trials: Iterable[FrozenTrial], params: Mapping[str, Any]
) -> int | None:
    """Return the trial that makes enqueued params superfluous, or None.

    That is a trial with the same params, where `study.duplicates` is `skip`.
    """
    if get_duplicate_policy(spec) != "skip":
        return None
    points = PointSpace(spec.space)
    point = points.locate(params)
    if point is None:  # params are left out
        return None
    for trial in trials:
        is_waiting = trial.state is TrialState.WAITING
        own = trial.system_attrs.get("fixed_params", {}) if is_waiting else trial.params
        if points.locate(own) == point:
            return trial.number
    return None
