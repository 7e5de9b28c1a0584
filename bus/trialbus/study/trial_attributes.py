"""Attributes of trials: keys and values that users set, as every storage of Optuna holds them."""

from __future__ import annotations

import json
from typing import Any, Final

from trialbus.study.values import check_text, check_value

RESERVED_PREFIX: Final = "trialbus:"
"""Prefix of the keys of trialbus' own attributes."""

MAX_KEY: Final = 512
"""Characters of a key: the width of Optuna's column in every database."""

MAX_VALUE: Final = 65_535
"""Bytes of a value as JSON: what the columns of MySQL and MariaDB hold, the narrowest."""

MAX_ATTRIBUTES: Final = 1000
"""Attributes of a trial."""


def check_key(key: Any) -> None:
    """Check the key of an attribute that a user sets on a trial.

    Raises:
        TypeError: The key is not text.
        ValueError: The key is empty, too long, not text that UTF-8 can hold, or reserved.
    """
    if not isinstance(key, str):
        raise TypeError(f"the key of an attribute is {key!r}, expected text")
    if not key:
        raise ValueError("the key of an attribute is empty, expected text")
    if len(key) > MAX_KEY:
        raise ValueError(
            f"the key {key[:40]!r}... of an attribute has {len(key)} characters, expected at most "
            f"{MAX_KEY}"
        )
    if key.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"the key {key!r} begins with {RESERVED_PREFIX!r}, as trialbus' own attributes do; "
            "expected another key"
        )
    check_text("the key of an attribute", key)


def convert_value(key: str, value: Any) -> Any:
    """Return the value of an attribute as a storage gives it back: a tuple becomes a list.

    Raises:
        TypeError: JSON cannot hold the value, or a part of the value.
        ValueError: The value is too long, too deeply nested, has an integer beyond 64 bits, or text
            that UTF-8 cannot hold.

    Example:
        >>> convert_value("sizes", (1, 2.5, {3: None}))
        [1, 2.5, {'3': None}]
    """
    try:
        text = json.dumps(value)
    except TypeError as error:
        raise TypeError(
            f"the attribute {key!r} is {_shorten(value)}, expected what JSON can hold: a number, "
            f"text, true, false, null, a list or a mapping ({error})"
        ) from None
    except (ValueError, RecursionError):  # a list in itself, or thousands of levels
        raise ValueError(
            f"the attribute {key!r} is {_shorten(value)}, expected fewer levels of lists and "
            "mappings"
        ) from None
    if len(text) > MAX_VALUE:
        raise ValueError(
            f"the attribute {key!r} takes {len(text)} bytes of JSON, expected at most {MAX_VALUE}; "
            "keep what is larger in a file: trial.log_artifact(path)"
        )
    converted = json.loads(text)
    check_value(f"the attribute {key!r}", converted)
    return converted


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
