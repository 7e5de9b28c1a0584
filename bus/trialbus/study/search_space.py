"""Search space: params, each with the values that a sampler may choose from."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from trialbus.study.values import check_value, is_same

Choice: TypeAlias = bool | int | float | str | None

_ROUNDING = 1e-8  # of a step, for floats

#: Optuna keeps integers of a range as floats, which hold every integer up to this one.
_MAX_EXACT = 2**53


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

    Each condition is a value or a list of allowed values; all conditions must hold. Of a labelled
    choice a condition names the label.
    """

    def encode(self, value: Any) -> Choice:
        """Return what the Optuna storage keeps for a value: the label of a labelled choice."""
        stored: Choice = value
        return stored

    def decode(self, stored: Any) -> Any:
        """Return the value that a training gets for what the Optuna storage keeps."""
        return stored


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

    def __str__(self) -> str:
        """Return the range in words: `0 to 1, step 0.1`."""
        return _describe_range(self.low, self.high, self.step, log=self.log)

    def decode(self, stored: Any) -> float:
        """Return a plain float; some samplers suggest NumPy's."""
        return float(stored)

    def contains(self, value: Any) -> bool:
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
        for name in ("low", "high"):
            if abs(getattr(self, name)) > _MAX_EXACT:
                raise ValueError(
                    f"{name} {getattr(self, name)} is beyond 2**53, up to which Optuna keeps every "
                    "integer (expected a smaller number, a float, or categorical)"
                )
        _check_range(self.low, self.high, log=self.log)
        if self.step <= 0:
            raise ValueError(f"step {self.step} is not above zero (expected step >= 1)")
        if self.step != 1 and self.log:
            raise ValueError(
                f"step {self.step} cannot be combined with log=true (expected one of the two)"
            )
        _check_step(self.low, self.high, self.step)

    def __str__(self) -> str:
        """Return the range in words: `int 1 to 8`."""
        step = None if self.step == 1 else self.step
        return f"int {_describe_range(self.low, self.high, step, log=self.log)}"

    def decode(self, stored: Any) -> int:
        """Return a plain integer; some samplers suggest NumPy's."""
        return int(stored)

    def contains(self, value: Any) -> bool:
        """Tell whether a value is allowed."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0


class CategoricalParam(_Param, frozen=True, kw_only=True, tag="categorical"):
    """A value out of `choices`, which have no order.

    Labelled choices, such as `{small: [64, 64], large: [256, 256]}`, let any value be a choice. The
    Optuna storage, views and reports have the label, the training has the value.

    Source:
        `optuna.distributions.CategoricalDistribution`.
    """

    choices: tuple[Choice, ...] | dict[str, Any]
    """Values to choose from: numbers, text, true, false or null, without duplicates; or a mapping
    from a label to a value of any kind, lists and mappings included."""

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices is empty (expected at least one)")
        if isinstance(self.choices, dict):
            _check_labelled(self.choices)
        else:
            _check_plain(self.choices)

    def __str__(self) -> str:
        """Return the choices, or their labels, as a list."""
        return f"[{', '.join(map(repr, self.labels))}]"

    @property
    def labels(self) -> tuple[Choice, ...]:
        """What the Optuna storage keeps of each choice: the label, else the choice itself."""
        return tuple(self.choices)

    @property
    def is_labelled(self) -> bool:
        """Whether the choices have labels."""
        return isinstance(self.choices, dict)

    def encode(self, value: Any) -> Choice:
        """Return the label of a choice; a label is returned as it is.

        Raises:
            ValueError: The value is not among the choices.
        """
        if isinstance(self.choices, dict):
            if isinstance(value, str) and value in self.choices:
                return value
            labels: list[Choice] = [
                label for label, choice in self.choices.items() if is_same(choice, value)
            ]
        else:
            labels = [choice for choice in self.choices if _is_choice(choice, value)]
        for label in labels:
            return label
        raise ValueError(f"{value!r} is not among {self}")

    def decode(self, stored: Any) -> Any:
        """Return the choice of a label; another value is returned as it is."""
        if isinstance(self.choices, dict):
            return self.choices.get(stored, stored) if isinstance(stored, str) else stored
        return next((choice for choice in self.choices if _is_choice(choice, stored)), stored)

    def contains(self, value: Any) -> bool:
        """Tell whether a value, or a label, is among the choices; true is different from 1."""
        try:
            self.encode(value)
        except ValueError:
            return False
        return True


Param: TypeAlias = FloatParam | IntParam | CategoricalParam


def make_fixed_param(value: Any) -> Param:
    """Return a param with a single value; a list or a mapping is labelled by its JSON."""
    match value:
        case int() if not isinstance(value, bool) and abs(value) <= _MAX_EXACT:
            return IntParam(low=value, high=value)
        case float() if math.isfinite(value):
            return FloatParam(low=value, high=value)
        case list() | tuple() | dict():
            return CategoricalParam(choices={json.dumps(value, ensure_ascii=False): value})
        case _:
            return CategoricalParam(choices=(value,))


def _check_plain(choices: tuple[Choice, ...]) -> None:
    seen: dict[Any, Choice] = {}
    for i, choice in enumerate(choices):
        check_value(f"choices[{i}]", choice)
        is_nan = isinstance(choice, float) and math.isnan(choice)
        other = seen.setdefault("nan" if is_nan else (choice,), choice)
        if other is choice and len(seen) == i + 1:
            continue
        if is_same(choice, other):
            raise ValueError(f"choices has {choice!r} twice (expected each value once)")
        raise ValueError(
            f"choices has {other!r} and {choice!r}, which Optuna takes for the same (expected "
            f"labels, such as {{a: {other!r}, b: {choice!r}}})"
        )


def _check_labelled(choices: dict[str, Any]) -> None:
    values: list[Any] = []
    for label, value in choices.items():
        check_value("choices", {label: value})
        if not label:
            raise ValueError("choices has an empty label (expected text)")
        if isinstance(value, str) and value != label and value in choices:
            raise ValueError(
                f"choices.{label} is {value!r}, which is the label of another choice "
                "(expected labels that are no values of others)"
            )
        if any(is_same(value, other) for other in values):
            raise ValueError(f"choices has {value!r} twice (expected each value once)")
        values.append(value)


def _is_choice(choice: Choice, value: Any) -> bool:
    if isinstance(value, bool) or isinstance(choice, bool):
        return choice is value
    both_nan = choice != choice and value != value  # noqa: PLR0124 - only NaN differs from itself
    return bool(choice == value) or both_nan


def _describe_range(low: float, high: float, step: float | None, *, log: bool) -> str:
    scale = ", log" if log else "" if step is None else f", step {step!r}"
    return f"{low!r} to {high!r}{scale}"


def _check_range(low: float, high: float, *, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"low {low:g} and high {high:g} must be finite")
    if not math.isfinite(high - low):
        raise ValueError(f"high {high:g} - low {low:g} is beyond the range of floats")
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
