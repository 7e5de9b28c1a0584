"""Optuna distributions of the params of a study, compared with the study in the storage."""

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
    check_distribution_compatibility,
)
from optuna.trial import FrozenTrial

from trialbus.errors import SpecError
from trialbus.study.conditions import find_unmet_condition
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam, Param
from trialbus.study.spec import StudySpec
from trialbus.study.values import is_same


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


def check_directions(spec: StudySpec, stored: Sequence[str]) -> None:
    """Check that a study has the directions of the study in the storage.

    Args:
        spec: Specification of the study.
        stored: Directions of the study in the storage.

    Raises:
        SpecError: The directions differ.
    """
    if list(stored) != spec.directions:
        raise SpecError(
            "study.objective.direction",
            f"{spec.directions} does not fit the study {spec.name!r} in the storage, "
            f"which has {stored}; use another study.name",
        )


def check_space(spec: StudySpec, trials: Sequence[FrozenTrial]) -> None:
    """Check that the params of a study are compatible with the trials in the storage.

    Args:
        spec: Specification of the study.
        trials: Trials of the study in the storage.

    Raises:
        SpecError: Optuna refuses a distribution beside the distribution of an earlier trial.
    """
    known: dict[str, BaseDistribution] = {}
    for trial in trials:
        known |= trial.distributions
    for name, param in spec.space.items():
        new = make_distribution(param)
        try:
            check_distribution_compatibility(known.get(name, new), new)
        except ValueError:
            key = "fixed" if name in spec.fixed else "params"
            raise SpecError(
                f"study.{key}.{name}",
                f"{new} does not fit the study {spec.name!r} in the storage, where it is "
                f"{known[name]}; use another study.name",
            ) from None


def check_names(spec: StudySpec, recorded: StudySpec | None, trials: Sequence[FrozenTrial]) -> None:
    """Check that a study has the params that the trials in the storage have.

    Args:
        spec: Specification of the study.
        recorded: Specification in the storage; None for a study of plain Optuna.
        trials: Trials of the study in the storage.

    Raises:
        SpecError: A param is new, renamed or left out, and the study does not allow this.
    """
    sampled = {name for trial in trials for name in trial.params}
    if not sampled or spec.allow_space_change:
        return
    # With conditions, a param may have been in no trial yet.
    known = sampled if recorded is None else set(recorded.space) | sampled
    new, gone = sorted(set(spec.space) - known), sorted(sampled - set(spec.space))
    if not new and not gone:
        return
    changes = [f"{name} is new" for name in new] + [f"{name} is left out" for name in gone]
    raise SpecError(
        "study.params",
        f"{', '.join(changes)}, but the study {spec.name!r} in the storage has trials with other "
        "params (expected another study.name, or study.allow_space_change=true to mix them)",
    )


def check_labels(spec: StudySpec, recorded: StudySpec | None) -> None:
    """Check that labelled choices have the values that they had in the study in the storage.

    Args:
        spec: Specification of the study.
        recorded: Specification in the storage; None for a study of plain Optuna.

    Raises:
        SpecError: A label stands for another value: its trials would be mixed with the old ones.
    """
    for name, param in spec.params.items():
        before = recorded.params.get(name) if recorded else None
        if not (isinstance(param, CategoricalParam) and isinstance(before, CategoricalParam)):
            continue
        for label in param.labels:
            value, old = param.decode(label), before.decode(label)
            if label in before.labels and not is_same(value, old):
                raise SpecError(
                    f"study.params.{name}",
                    f"{label} is {value!r}, and was {old!r} in the study {spec.name!r} in the "
                    "storage; use another label, or another study.name",
                )


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
