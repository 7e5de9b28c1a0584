"""Attributes of trials: keys and values that users set, as every storage of Optuna holds them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
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


class AttributeKeys:
    """The keys of a trial's attributes, which every storage tells apart.

    MySQL and MariaDB compare keys without case, accents and spaces at the end, and a later key
    would replace an earlier one.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = {_fold(key): key for key in keys}

    def add(self, key: str) -> None:
        """Check and add a key, which may be known.

        Raises:
            TypeError: The key is not text.
            ValueError: No storage, or not every storage, can hold the key beside the others.
        """
        check_key(key)
        known = self._keys.get(_fold(key))
        if known is None and len(self._keys) >= MAX_ATTRIBUTES:
            raise ValueError(f"the trial has {MAX_ATTRIBUTES} attributes, expected no further key")
        if known not in (None, key):
            raise ValueError(
                f"the key {key!r} differs from the key {known!r} in case, accents or spaces alone, "
                "which MySQL takes for the same; expected another key"
            )
        self._keys[_fold(key)] = key


def _fold(key: str) -> str:
    """Return what is the same of all keys that a database may take for the same."""
    letters = unicodedata.normalize("NFKD", key.casefold())
    return "".join(
        "\ufffd" if letter > "\uffff" else letter  # one character to older collations
        for letter in letters
        if not unicodedata.combining(letter)
    ).rstrip(" ")


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
