"""What a trainer may report as metrics, made into plain floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trialbus.study.spec import is_mapping


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as floats by name; nested mappings are joined with `/`.

    Python numbers, NumPy scalars and tensors without dimensions are taken; neither library is
    imported for it.

    Raises:
        TypeError: A value is not one number; the message names its key.

    Example:
        >>> flatten({"val": {"accuracy": 1}, "loss": 0.5})
        {'val/accuracy': 1.0, 'loss': 0.5}
    """
    flat: dict[str, float] = {}
    _add(flat, "", metrics)
    return flat


def _add(flat: dict[str, float], prefix: str, metrics: Mapping[str, Any]) -> None:
    for name, value in metrics.items():
        key = f"{prefix}{name}"
        if type(value) is float:
            flat[key] = value
        elif is_mapping(value):
            _add(flat, f"{key}/", value)
        else:
            flat[key] = _number(key, value)


def _number(key: str, value: Any) -> float:
    if isinstance(value, str | bytes) or value is None or getattr(value, "ndim", 0) != 0:
        raise TypeError(f"metric {key!r} is {_shown(value)}, expected one number")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {key!r} is {_shown(value)}, expected one number") from error


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {tuple(shape)}" if shape else repr(value)
