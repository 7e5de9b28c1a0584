"""From the parameters of a specification to Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from trialbus.conditions import unmet
from trialbus.params import CategoricalParam, FloatParam, IntParam, Param


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
        if unmet(param, found) is None:
            found[name] = _suggest(trial, name, param)
    return found


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
