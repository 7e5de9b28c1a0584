"""Plain data, as YAML and JSON give it, made into a type; what is wrong is said in full."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec

from trialbus.errors import SpecError

_T = TypeVar("_T")

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_NO_CHOICE = re.compile(r"Invalid (?:enum )?value ")


def checked(key: str, data: Any, type_: type[_T] | Any) -> Any:
    """Return data as a type.

    Args:
        key: Dotted path of the data, for the error.
        data: What YAML or JSON gives.
        type_: Any type that `msgspec.convert` knows.

    Raises:
        SpecError: Something in it is unknown, missing or of the wrong type; names the key and the
            value, what was expected, and the nearest name where there is one.
    """
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        inner = path.rstrip("`")
        place, value = _descend(type_, data, inner)
        unknown = _UNKNOWN.match(problem)
        if unknown:
            known = [n for found in place for n in _names(found)]
            raise SpecError(
                f"{key}{inner}.{unknown[1]}", f"no such key{nearest(unknown[1], known)}"
            ) from None
        if _NO_CHOICE.match(problem):
            choices = [str(choice) for found in place for choice in get_args(found)]
            raise SpecError(
                key + inner, f"{value!r} is not one of its values{nearest(str(value), choices)}"
            ) from None
        shown = f" (got {value!r})" if inner and value is not None else ""
        raise SpecError(key + inner, f"{problem}{shown}") from None


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about a name that is none: the nearest, or all of them.

    Example:
        >>> nearest("meduim", ["low", "medium"]), nearest("x", ["low", "medium"])
        ("; did you mean 'medium'?", ' (expected one of low, medium)')
    """
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f" (expected one of {', '.join(sorted(known))})" if known else ""


def _descend(type_: Any, data: Any, path: str) -> tuple[list[Any], Any]:
    """Return the types that may stand at a path, and the value that does."""
    here = _alternatives(type_, data)
    for part in re.findall(r"[^.\[\]]+", path.replace("[...]", "")):
        if part.isdigit():
            inner = [get_args(t)[0] for t in here if get_args(t)]
            data = cast(Any, data)[int(part)] if isinstance(data, list) else None
        else:
            tags = [Literal[_tag(t)] for t in here if _tag_field(t) == part]
            inner = tags or [f for t in here for f in _field_types(t, part)]
            data = cast(Mapping[str, Any], data).get(part) if isinstance(data, Mapping) else None
        here = [found for each in inner for found in _alternatives(each, data)]
    return here, data


def _alternatives(type_: Any, data: Any) -> list[Any]:
    """Return the members of a union; of tagged ones that with the tag, if the data has it."""
    if get_origin(type_) not in (Union, types.UnionType):
        return [type_]
    members = [t for t in get_args(type_) if t is not type(None)]
    if isinstance(data, Mapping):
        tagged = [t for t in members if cast(Any, data).get(_tag_field(t)) == _tag(t)]
        return tagged or members
    return members


def _field_types(type_: Any, name: str) -> list[Any]:
    if not _is_struct(type_):
        return []
    return [f.type for f in msgspec.structs.fields(type_) if f.encode_name == name]


def _names(type_: Any) -> list[str]:
    return list(type_.__struct_encode_fields__) if _is_struct(type_) else []


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _tag_field(type_: Any) -> str | None:
    return type_.__struct_config__.tag_field if _is_struct(type_) else None


def _tag(type_: Any) -> Any:
    return type_.__struct_config__.tag if _is_struct(type_) else None
