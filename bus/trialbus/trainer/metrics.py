"""Metrics of an evaluation, converted to plain floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trialbus.study.validation import is_mapping


def flatten_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as floats by name; nested mappings are joined with `/`.

    Accepts Python numbers, NumPy scalars and tensors without dimensions, and imports neither
    library.

    Raises:
        TypeError: A value is not one number; names the key.

    Example:
        >>> flatten_metrics({"val": {"accuracy": 1}, "loss": 0.5})
        {'val/accuracy': 1.0, 'loss': 0.5}
    """
    flat: dict[str, float] = {}
    _add_metrics(flat, "", metrics)
    return flat


def _add_metrics(flat: dict[str, float], prefix: str, metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        key = f"{prefix}{name}"
        if type(value) is float:
            flat[key] = value
        elif is_mapping(value):
            _add_metrics(flat, f"{key}/", value)
        else:
            flat[key] = _convert_number(key, value)


def _convert_number(key: str, value: Any) -> float:
    if isinstance(value, str | bytes) or value is None or getattr(value, "ndim", 0) != 0:
        raise TypeError(f"metric {key!r} is {_describe(value)}, expected one number")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {key!r} is {_describe(value)}, expected one number") from error


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {tuple(shape)}" if shape else repr(value)
