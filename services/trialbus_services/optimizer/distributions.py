"""Optuna distributions of the params of a study, and the values that they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, assert_never, overload

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from trialbus.study.conditions import find_unmet_condition
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam, Param


def make_distribution(param: Param) -> BaseDistribution:
    """Return the Optuna distribution of a param."""
    match param:
        case FloatParam():
            return FloatDistribution(param.low, param.high, log=param.log, step=param.step)
        case IntParam():
            return IntDistribution(param.low, param.high, log=param.log, step=param.step)
        case CategoricalParam():
            return CategoricalDistribution(param.labels)
        case _:
            assert_never(param)


def make_param(distribution: BaseDistribution) -> Param:
    """Return the param of an Optuna distribution.

    Raises:
        ValueError: The distribution has values that no message of the bus can hold, or choices that
            cannot be told apart.
    """
    match distribution:
        case FloatDistribution():
            return FloatParam(
                low=distribution.low,
                high=distribution.high,
                log=distribution.log,
                step=distribution.step,
            )
        case IntDistribution():
            return IntParam(
                low=distribution.low,
                high=distribution.high,
                log=distribution.log,
                step=distribution.step,
            )
        case CategoricalDistribution():
            for choice in distribution.choices:
                if not isinstance(choice, bool | int | float | str | None):  # pyright: ignore[reportUnnecessaryIsInstance] - Optuna only warns
                    problem = f"the choice {choice!r} cannot be recorded"
                    raise ValueError(  # noqa: TRY004 - as of every other range
                        f"{problem} (expected None, a bool, a number or text)"
                    )
            return CategoricalParam(choices=distribution.choices)
        case _:
            raise ValueError(f"{distribution!r} is no distribution of Optuna")


def get_single_value(distribution: BaseDistribution) -> Any:
    """Return the value of a distribution that has a single value."""
    values = list_values(make_param(distribution))
    assert values is not None
    return values[0]


def describe_distribution(distribution: BaseDistribution) -> str:
    """Return the values of an Optuna distribution in words, as `str` does of a param."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return str(FloatParam(low=low, high=high, log=log, step=step))
        case IntDistribution(low=low, high=high, log=log, step=step):
            return str(IntParam(low=low, high=high, log=log, step=step))
        case CategoricalDistribution(choices=choices):
            return f"[{', '.join(map(repr, choices))}]"
        case _:
            return str(distribution)


def list_values(param: Param) -> Sequence[Any] | None:
    """Return the values of a param, or their labels, in order; None for infinitely many."""
    match param:
        case CategoricalParam():
            return param.labels
        case IntParam():
            return range(param.low, param.high + 1, param.step)
        case FloatParam() if param.low == param.high:
            return (param.low,)
        case FloatParam(step=float() as step):
            return _Steps(param.low, param.high, step)
        case _:
            return None


class _Steps(Sequence[float]):
    """The values of a float with a step, without a list of all of them.

    In decimal, as in Optuna: 0.1 + 0.1 + 0.1 is 0.3.
    """

    def __init__(self, low: float, high: float, step: float) -> None:
        self._low, end, self._step = (Decimal(str(number)) for number in (low, high, step))
        self._n = int((end - self._low) // self._step) + 1

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...
    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        if not -self._n <= index < self._n:
            raise IndexError(index)
        return float(self._low + index % self._n * self._step)


def suggest_params(trial: optuna.Trial, params: Mapping[str, Param]) -> dict[str, Any]:
    """Suggest the params of a trial; params with a value in the trial keep the value.

    A param with an unmet condition is left out, as in a define-by-run study of Optuna. Unlike
    `study.ask(distributions)`, the function completes a trial whose sampling was cut short.

    Args:
        trial: The trial.
        params: A search space in the order of its conditions, as `StudySpec.space` is.
    """
    values: dict[str, Any] = {}
    for name, param in params.items():
        if find_unmet_condition(param, values) is None:
            values[name] = _suggest(trial, name, param)
    return values


def _suggest(trial: optuna.Trial, name: str, param: Param) -> Any:
    match param:
        case FloatParam():
            return trial.suggest_float(name, param.low, param.high, log=param.log, step=param.step)
        case IntParam():
            return trial.suggest_int(name, param.low, param.high, log=param.log, step=param.step)
        case CategoricalParam():
            return trial.suggest_categorical(name, param.labels)
        case _:
            assert_never(param)
