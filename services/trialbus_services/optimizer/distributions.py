"""From the parameters of a specification to Optuna's distributions, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.trial import FrozenTrial

from trialbus.errors import SpecError
from trialbus.study.conditions import find_unmet_condition
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam, Param
from trialbus.study.spec import StudySpec


def distribution(param: Param) -> BaseDistribution:
    """Return the Optuna distribution of a parameter."""
    match param:
        case FloatParam():
            return FloatDistribution(param.low, param.high, log=param.log, step=param.step)
        case IntParam():
            return IntDistribution(param.low, param.high, log=param.log, step=param.step)
        case CategoricalParam():
            return CategoricalDistribution(param.choices)
        case _:
            assert_never(param)


def suggest(trial: optuna.Trial, params: Mapping[str, Param]) -> dict[str, Any]:
    """Sample the parameters of a trial; those it already has keep their value.

    One whose conditions are not met is not suggested, as in a define-by-run study of Optuna. Unlike
    `study.ask(distributions)` this completes a trial whose sampling was cut short.

    Args:
        trial: The trial.
        params: A search space in the order of its conditions, as `StudySpec.space` is.
    """
    found: dict[str, Any] = {}
    for name, param in params.items():
        if find_unmet_condition(param, found) is None:
            found[name] = _suggest(trial, name, param)
    return found


def check_directions(spec: StudySpec, found: Sequence[str]) -> None:
    """Check a study's directions beside those that it has in the storage.

    Raises:
        SpecError: They differ.
    """
    if list(found) != spec.directions:
        raise SpecError(
            "study.objective.direction",
            f"{spec.directions} does not fit the study {spec.name!r} in the storage, "
            f"which has {found}; use another study.name",
        )


def check_space(spec: StudySpec, trials: Sequence[FrozenTrial]) -> None:
    """Check that Optuna takes a study's params beside those of the trials it has.

    Raises:
        SpecError: It does not take one of them.
    """
    known: dict[str, BaseDistribution] = {}
    for trial in trials:
        known |= trial.distributions
    for name, param in spec.space.items():
        new = distribution(param)
        try:
            check_distribution_compatibility(known.get(name, new), new)
        except ValueError:
            key = "fixed" if name in spec.fixed else "params"
            raise SpecError(
                f"study.{key}.{name}",
                f"{new} does not fit the study {spec.name!r} in the storage, where it is "
                f"{known[name]}; use another study.name",
            ) from None


def _suggest(trial: optuna.Trial, name: str, param: Param) -> Any:
    match param:
        case FloatParam():
            return trial.suggest_float(name, param.low, param.high, log=param.log, step=param.step)
        case IntParam():
            return trial.suggest_int(name, param.low, param.high, log=param.log, step=param.step)
        case CategoricalParam():
            return trial.suggest_categorical(name, param.choices)
        case _:
            assert_never(param)
