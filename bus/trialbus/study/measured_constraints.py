"""Measured constraints: violations that a training sets itself, as every storage holds them."""

from __future__ import annotations

import math
from typing import Any

from trialbus.study.values import check_text

_MAX_KEY = 500  # characters; Optuna keeps 512, with a prefix


def convert_violation(key: Any, violation: Any) -> float:
    """Return the violation of a constraint as a float, after a check of key and violation.

    Raises:
        TypeError: `key` is not text, or `violation` is not a number.
        ValueError: `key` is empty, too long or not text that UTF-8 can hold, or `violation` is not
            finite.

    Example:
        >>> convert_violation("size", -3)
        -3.0
    """
    if not isinstance(key, str):
        raise TypeError(f"the name of a constraint is {key!r}, expected text")
    if not 1 <= len(key) <= _MAX_KEY:
        raise ValueError(
            f"the name {key[:40]!r} of a constraint has {len(key)} characters, expected 1 to "
            f"{_MAX_KEY}"
        )
    check_text("the name of a constraint", key)
    try:
        number = float(violation)
    except (TypeError, ValueError):
        raise TypeError(
            f"the violation of the constraint {key!r} is {violation!r}, expected a number"
        ) from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(
            f"the violation of the constraint {key!r} is {number}, expected a finite number"
        )
    return number
