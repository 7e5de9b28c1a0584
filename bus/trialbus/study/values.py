"""Values: what a param or a configuration may hold, and how JSON keeps numbers that it lacks.

A value is null, true, false, a 64-bit integer, a float (infinities and NaN included), text, a list
of values, or a mapping from text to values. MessagePack, JSON and YAML all give such a value back
unchanged, except that JSON has no infinities and no NaN: `separate_non_finite` names the places of
these numbers beside the JSON, and `restore_non_finite` puts them back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

#: Least and greatest integer that every encoding on the way to a training can hold.
INT_RANGE = (-(2**63), 2**64 - 1)

#: Levels of lists and mappings in a value; the whole message may have `limits.MAX_NESTING`.
_MAX_DEPTH = 64

#: No process takes a NUL in its arguments or environment, and UTF-8 has no surrogates.
_NOT_TEXT = re.compile(r"[\0\ud800-\udfff]")

_EXPECTED = "expected a number, text, true, false, null, a list or a mapping by names"


def check_value(key: str, value: Any, depth: int = 0) -> None:
    """Check that a value reaches a training unchanged.

    Args:
        key: Dotted path of the value, for the error.
        value: The value.
        depth: Number of lists and mappings around the value.

    Raises:
        ValueError: A part of the value is of another kind, an integer beyond 64 bits, text with a
            NUL or a surrogate, or nested too deeply; the message begins with the path of the part.

    Example:
        >>> check_value("clip", [1, float("inf"), {"name": None}])
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"{key} is nested more than {_MAX_DEPTH} levels deep (expected fewer)")
    match value:
        case str():
            check_text(key, value)
        case list() | tuple():
            for i, entry in enumerate(cast("list[Any]", value)):
                check_value(f"{key}[{i}]", entry, depth + 1)
        case dict():
            entries = _get_entries(value)
            for name, entry in entries.items():
                _check_name(key, name)
                check_value(f"{key}.{name}", entry, depth + 1)
        case _:
            _check_scalar(key, value)


def _check_name(key: str, name: Any) -> None:
    if not isinstance(name, str):
        raise ValueError(f"{key} has the key {name!r} (expected text)")  # noqa: TRY004 - one error
    check_text(key, name)


def _check_scalar(key: str, value: Any) -> None:
    is_int = type(value) is int
    if is_int and not INT_RANGE[0] <= value <= INT_RANGE[1]:
        raise ValueError(f"{key} is {value!r} (expected an integer of 64 bits, or text)")
    if not (is_int or value is None or type(value) in (bool, float)):
        raise ValueError(f"{key} is {value!r} ({_EXPECTED})")


def check_text(key: str, text: str) -> None:
    """Check that text has neither a NUL nor a surrogate.

    Raises:
        ValueError: The text has such a character; the message begins with `key`.
    """
    wrong = _NOT_TEXT.search(text)
    if wrong:
        name = "a NUL character" if wrong[0] == "\0" else f"the surrogate {wrong[0]!r}"
        raise ValueError(f"{key} {text[:80]!r} has {name} (expected text that UTF-8 can hold)")


def is_same(value: Any, other: Any) -> bool:
    """Tell whether two values are the same: of the same type, and NaN is the same as NaN.

    Example:
        >>> is_same(1, True), is_same(1, 1.0), is_same([float("nan")], [float("nan")])
        (False, False, True)
    """
    match value, other:
        case float(), float():
            return value == other or (math.isnan(value) and math.isnan(other))
        case (list() | tuple(), list() | tuple()):
            ours, theirs = cast("list[Any]", value), cast("list[Any]", other)
            return len(ours) == len(theirs) and all(map(is_same, ours, theirs))
        case dict(), dict():
            return _are_same_mappings(_get_entries(value), _get_entries(other))
        case _:
            return type(value) is type(other) and bool(value == other)


def _get_entries(value: Any) -> dict[Any, Any]:
    entries: dict[Any, Any] = value
    return entries


def _are_same_mappings(value: dict[Any, Any], other: dict[Any, Any]) -> bool:
    return value.keys() == other.keys() and all(
        is_same(entry, other[name]) for name, entry in value.items()
    )


def separate_non_finite(data: Any, placeholder: Any = None) -> tuple[Any, dict[str, str]]:
    """Return a copy of data that JSON can hold, and the numbers that JSON cannot hold.

    Args:
        data: Value of any kind, with tuples and mappings with keys of any kind in it.
        placeholder: What stands in the copy in place of such a number; a function of the number's
            text, or a constant.

    Returns:
        The copy, and by JSON Pointer the text `Infinity`, `-Infinity` or `NaN`, which `float` of
        Python and `Number` of JavaScript understand.

    Source:
        RFC 6901, "JavaScript Object Notation (JSON) Pointer".

    Example:
        >>> separate_non_finite({"clip": float("inf"), "lr": 0.1})
        ({'clip': None, 'lr': 0.1}, {'/clip': 'Infinity'})
    """
    found: dict[str, str] = {}

    def copy(value: Any, pointer: str) -> Any:
        match value:
            case float() if not math.isfinite(value):
                text = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
                found[pointer] = text
                return placeholder(text) if callable(placeholder) else placeholder
            case dict():
                pairs = _get_entries(value)
                return {str(k): copy(v, f"{pointer}/{_escape(str(k))}") for k, v in pairs.items()}
            case list() | tuple():
                entries = cast("list[Any]", value)
                return [copy(entry, f"{pointer}/{i}") for i, entry in enumerate(entries)]
            case _:
                return value

    return copy(data, ""), found


def restore_non_finite(data: Any, non_finite: Mapping[str, str]) -> None:
    """Put the numbers that `separate_non_finite` found back into the decoded JSON, in place.

    Raises:
        ValueError: A pointer leads nowhere, or a text is no number.
    """
    for pointer, text in non_finite.items():
        *parents, last = [_unescape(part) for part in pointer.split("/")[1:]]
        try:
            place = data
            for part in parents:
                place = _enter(place, part)
            place[_find_index(place, last)] = float(text)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"non_finite has {pointer!r}: {text!r}, which is no place") from error


def _enter(place: Any, part: str) -> Any:
    return place[_find_index(place, part)]


def _find_index(place: Any, part: str) -> int | str:
    return int(part) if isinstance(place, list) else part


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
