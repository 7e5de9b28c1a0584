"""From the parameters of a specification to Optuna's distributions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from trialbus.params import CategoricalParam, FloatParam, IntParam, Param
from trialbus.spec import StudySpec


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


def check_space(spec: StudySpec, trials: Iterable[FrozenTrial]) -> None:
    """Check that Optuna takes the params of a study beside those that its trials have.

    Raises:
        SpecError: One has another distribution there.
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


def suggest(trial: optuna.Trial, params: Mapping[str, Param]) -> dict[str, Any]:
    """Sample every parameter of a trial; those it already has keep their value.

    Unlike `study.ask(distributions)` this completes a trial whose sampling was cut short.
    """
    return {name: _suggest(trial, name, param) for name, param in params.items()}


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
