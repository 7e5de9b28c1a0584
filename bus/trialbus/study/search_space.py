"""Search space: params, each with the values that a sampler may choose from."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TypeAlias

import msgspec

Choice: TypeAlias = bool | int | float | str | None

_ROUNDING = 1e-8  # of a step, for floats


class _Param(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    forbid_unknown_fields=True,
    omit_defaults=True,  # older versions know no conditions and refuse the key `when`
    repr_omit_defaults=True,
):
    """Base class of all params."""

    when: dict[str, Choice | tuple[Choice, ...]] = {}
    """Values that other params must have for this param to be in a trial; empty for always.

    Each condition is a value or a list of allowed values; all conditions must hold.
    """


class FloatParam(_Param, frozen=True, kw_only=True, tag="float"):
    """A real number between `low` and `high`, both included.

    `log` samples its logarithm uniformly and needs `low > 0`; `step` restricts it to
    `low, low + step, ...` and cannot be combined with `log`.

    Source:
        `optuna.distributions.FloatDistribution`.
    """

    low: float
    """Lowest value, included."""

    high: float
    """Highest value, included."""

    log: bool = False
    """Whether the logarithm is sampled uniformly, which needs `low > 0`."""

    step: float | None = None
    """Distance between allowed values, from `low` on; None allows every value. Not with `log`."""

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, log=self.log)
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step {self.step:g} is not above zero (expected step > 0)")
        if self.step is not None and self.log:
            raise ValueError(
                f"step {self.step:g} cannot be combined with log=true (expected one of the two)"
            )
        if self.step is not None:
            _check_step(self.low, self.high, self.step)

    def contains(self, value: Choice) -> bool:
        """Tell whether a value is allowed."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return self.low <= value <= self.high and abs(steps - round(steps)) < _ROUNDING


class IntParam(_Param, frozen=True, kw_only=True, tag="int"):
    """An integer between `low` and `high`, both included, in steps of `step`.

    Source:
        `optuna.distributions.IntDistribution`.
    """

    low: int
    """Lowest value, included."""

    high: int
    """Highest value, included."""

    log: bool = False
    """Whether the logarithm is sampled uniformly, which needs `low > 0`."""

    step: int = 1
    """Distance between allowed values, counted from `low`. Not with `log`."""

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, log=self.log)
        if self.step <= 0:
            raise ValueError(f"step {self.step} is not above zero (expected step >= 1)")
        if self.step != 1 and self.log:
            raise ValueError(
                f"step {self.step} cannot be combined with log=true (expected one of the two)"
            )
        _check_step(self.low, self.high, self.step)

    def contains(self, value: Choice) -> bool:
        """Tell whether a value is allowed."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0


class CategoricalParam(_Param, frozen=True, kw_only=True, tag="categorical"):
    """A value out of `choices`, which have no order.

    Source:
        `optuna.distributions.CategoricalDistribution`.
    """

    choices: tuple[Choice, ...]
    """Values to choose from: numbers, text, true, false or null; without duplicates."""

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices is empty (expected at least one)")
        seen: set[tuple[bool, Choice]] = set()
        for choice in self.choices:
            if (isinstance(choice, bool), choice) in seen:
                raise ValueError(f"choices has {choice!r} twice (expected each value once)")
            seen.add((isinstance(choice, bool), choice))

    def contains(self, value: Choice) -> bool:
        """Tell whether a value is among the choices; true is different from 1."""
        return any(
            value == choice and isinstance(value, bool) == isinstance(choice, bool)
            for choice in self.choices
        )


Param: TypeAlias = FloatParam | IntParam | CategoricalParam


def make_fixed_param(value: Choice) -> Param:
    """Return a param with a single value.

    Raises:
        ValueError: The value is not finite.
    """
    match value:
        case bool() | str() | None:
            return CategoricalParam(choices=(value,))
        case int():
            return IntParam(low=value, high=value)
        case float():
            return FloatParam(low=value, high=value)


def _check_range(low: float, high: float, *, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"low {low:g} and high {high:g} must be finite")
    if low > high:
        raise ValueError(f"low {low:g} is above high {high:g} (expected low <= high)")
    if log and low <= 0:
        raise ValueError(f"low {low:g} is not above zero (expected low > 0 with log=true)")


def _check_step(low: float, high: float, step: float) -> None:
    # In decimal numbers, in which three steps of 0.1 are 0.3.
    begin, end, width = (Decimal(str(number)) for number in (low, high, step))
    steps = (end - begin) // width
    if begin + steps * width != end:
        raise ValueError(
            f"step {step:g} does not divide high - low = {end - begin} "
            f"(expected high {begin + steps * width} or {begin + (steps + 1) * width}, for example)"
        )
