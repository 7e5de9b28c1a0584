"""Metrics: step and metrics of an evaluation, converted to plain numbers."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat, SupportsIndex

from trialbus.messages.trial_events import MAX_METRICS
from trialbus.study.validation import is_mapping

#: Highest step that every Optuna storage can hold.
MAX_STEP = 2**31 - 1


#: Default of an argument that has to be given; a call without it is explained.
NO_METRICS: Mapping[str, Any] = {}

_EXAMPLE = 'write report(3, {"loss": 0.5}): the step first, then the metrics by name'


def convert_step(step: SupportsIndex, example: str = _EXAMPLE) -> int:
    """Convert the step of an evaluation to a Python integer.

    Args:
        step: The step.
        example: What to write, for the error.

    Raises:
        TypeError: The step is not an integer of Python, NumPy or torch.
        ValueError: The step is negative or above 2**31 - 1.
    """
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(
            f"step is {step!r}, expected an integer from 0 to {MAX_STEP}; {example}"
        ) from None
    if not 0 <= number <= MAX_STEP:
        raise ValueError(f"step is {step!r}, expected an integer from 0 to {MAX_STEP}")
    return number


def flatten_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Convert metrics to floats by name; names of nested mappings are joined with `/`.

    Accepts Python numbers, NumPy scalars and tensors without dimensions, and imports neither
    library.

    Raises:
        TypeError: `metrics` is not a mapping, a name is not text, or a value is not one number;
            names the key.
        ValueError: There is no number in `metrics`, or more than 1000, a name is empty, or an
            integer is beyond the range of a float.

    Example:
        >>> flatten_metrics({"val": {"accuracy": 1}, "loss": 0.5})
        {'val/accuracy': 1.0, 'loss': 0.5}
    """
    flat: dict[str, float] = {}
    try:
        _add_metrics(flat, "", metrics)
    except AttributeError:
        if hasattr(metrics, "items"):
            raise
        raise TypeError(
            f"metrics is {metrics!r}, expected a mapping of names to numbers; {_EXAMPLE}"
        ) from None
    if metrics is NO_METRICS:
        raise TypeError(f"metrics is missing; {_EXAMPLE}")
    if not flat:
        raise ValueError(f"metrics is {metrics!r}, expected one number or more by name")
    if len(flat) > MAX_METRICS:
        raise ValueError(f"metrics has {len(flat)} numbers, expected at most {MAX_METRICS}")
    return flat


def _add_metrics(flat: dict[str, float], prefix: str, metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        try:
            key = prefix + name
        except TypeError:
            raise _make_name_error(prefix, name) from None
        if not name:
            raise _make_name_error(prefix, name)
        if type(value) is float:
            flat[key] = value
        elif is_mapping(value):
            _add_metrics(flat, f"{key}/", value)
        else:
            flat[key] = _convert_number(key, value)


def _make_name_error(prefix: str, name: object) -> TypeError | ValueError:
    place = f"below {prefix[:-1]!r}" if prefix else "in metrics"
    if isinstance(name, str):
        return ValueError(f"a name {place} is empty, expected the name of a metric")
    return TypeError(f"the name {name!r} {place} is not text, expected the name of a metric")


def _convert_number(key: str, value: Any) -> float:
    if isinstance(value, str | bytes) or value is None or getattr(value, "ndim", 0) != 0:
        raise TypeError(f"metric {key!r} is {_describe(value)}, expected one number")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {key!r} is {_describe(value)}, expected one number") from error
    except OverflowError:
        raise ValueError(
            f"metric {key!r} is an integer beyond the range of a float, expected at most 1.8e308"
        ) from None


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {tuple(shape)}" if shape else repr(value)


def convert_values(values: SupportsFloat | Sequence[SupportsFloat]) -> list[float]:
    """Return objective values as a list of numbers.

    Args:
        values: Objective value of a trial, or its values.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is an integer beyond the range of a float.
    """
    sequence = list(values) if isinstance(values, Sequence) else [values]
    try:
        if isinstance(values, str | bytes):
            raise TypeError  # noqa: TRY301 - float() accepts text such as "1"
        return [float(value) for value in sequence]
    except OverflowError:
        raise ValueError(
            "the objective is an integer beyond the range of a float, expected at most 1.8e308"
        ) from None
    except (TypeError, ValueError):
        raise TypeError(
            f"the objective is {values!r}, expected a number or a list of numbers"
        ) from None
