"""Validation: conversion of plain data from YAML and JSON to types, with readable errors."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin

import msgspec

from trialbus.errors import SpecError

_T = TypeVar("_T")

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_NO_CHOICE = re.compile(r"Invalid (?:enum )?value ")
_NO_KEY = re.compile(r"Invalid enum value '(.*)' - at `key` in `\$(.*)`", re.DOTALL)


def convert(key: str, data: Any, type_: type[_T] | Any) -> Any:
    """Convert plain data to a type.

    Args:
        key: Dotted path of the data, for the error; empty for the root of a file.
        data: Data as YAML or JSON gives them.
        type_: Any type that `msgspec.convert` knows.

    Raises:
        SpecError: A key is unknown or missing, or a value has the wrong type; names the key, the
            value, what was expected, and the nearest name where there is one.
    """
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        if wrong_key := _NO_KEY.fullmatch(str(error)):
            raise _explain_key(key, data, type_, *wrong_key.groups()) from None
        problem, _, path = str(error).partition(" - at `$")
        inner_path = path.rstrip("`")
        candidates, value = _find_types_at(type_, data, inner_path)
        inner_key = (key + inner_path).removeprefix(".")
        unknown = _UNKNOWN.match(problem)
        if unknown:
            names = [name for type_ in candidates for name in _get_field_names(type_)]
            raise SpecError(
                f"{inner_key}.{unknown[1]}".removeprefix("."),
                f"no such key{format_expected(unknown[1], names)}",
            ) from None
        if _NO_CHOICE.match(problem):
            choices = [str(choice) for type_ in candidates for choice in get_args(type_)]
            raise SpecError(
                inner_key,
                f"{value!r} is not an allowed value{format_expected(str(value), choices)}",
            ) from None
        is_shown = inner_path and value is not None and not isinstance(value, Mapping)
        value_text = f" (got {value!r})" if is_shown else ""
        raise SpecError(inner_key, f"{_name_kinds(problem)}{value_text}") from None


def _name_kinds(problem: str) -> str:
    """Return a problem with the words of YAML for the kinds of data that msgspec names."""
    return re.sub(
        r"`.*?`",
        lambda kinds: kinds[0].replace("object", "mapping").replace("array", "list"),
        problem,
    )


def _explain_key(key: str, data: Any, type_: Any, name: str, path: str) -> SpecError:
    """Return the error of a mapping in which only some keys are allowed."""
    candidates, _ = _find_types_at(type_, data, path)
    keys = [get_args(mapping)[0] for mapping in candidates if get_args(mapping)]
    known = [str(choice) for type_ in keys for choice in get_args(type_)]
    inner_key = f"{key}{path}.{name}".removeprefix(".")
    return SpecError(inner_key, f"no such key{format_expected(name, known)}")


def format_expected(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about a wrong name: the nearest known name, or all names.

    Example:
        >>> format_expected("meduim", ["low", "medium"])
        "; did you mean 'medium'?"
        >>> format_expected("x", ["low", "medium"])
        ' (expected one of low, medium)'
    """
    known = list(names)
    near = find_nearest(name, known)
    if near is not None:
        return f"; did you mean {near!r}?"
    return f" (expected one of {', '.join(sorted(known))})" if known else ""


def find_nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the known name that is nearest to a misspelt name, or None if no name is near."""
    import difflib  # only for errors

    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def is_mapping(data: Any) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether data is a mapping; keys of YAML and JSON mappings are text."""
    return isinstance(data, Mapping)


def _find_types_at(type_: Any, data: Any, path: str) -> tuple[list[Any], Any]:
    """Return the types that are allowed at a path, and the value at that path."""
    candidates = _select_members(type_, data)
    for part in re.findall(r"[^.\[\]]+", path.replace("[...]", "")):
        if part.isdigit():
            inner = [get_args(t)[0] for t in candidates if get_args(t)]
            data = cast(Any, data)[int(part)] if isinstance(data, list) else None
        else:
            tags = [Literal[_get_tag(t)] for t in candidates if _get_tag_field(t) == part]
            inner = tags or [f for t in candidates for f in _find_field_types(t, part)]
            data = cast(Mapping[str, Any], data).get(part) if isinstance(data, Mapping) else None
        candidates = [member for type_ in inner for member in _select_members(type_, data)]
    return candidates, data


def _select_members(type_: Any, data: Any) -> list[Any]:
    """Return the member types of a union that data may have, by the tag if the data has a tag."""
    if get_origin(type_) not in (Union, types.UnionType):
        return [type_]
    members = [t for t in get_args(type_) if t is not type(None)]
    if isinstance(data, Mapping):
        tagged = [t for t in members if cast(Any, data).get(_get_tag_field(t)) == _get_tag(t)]
        return tagged or members
    return members


def _find_field_types(type_: Any, name: str) -> list[Any]:
    if not _is_struct(type_):
        return []
    return [f.type for f in msgspec.structs.fields(type_) if f.encode_name == name]


def _get_field_names(type_: Any) -> list[str]:
    return list(type_.__struct_encode_fields__) if _is_struct(type_) else []


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _get_tag_field(type_: Any) -> str | None:
    return type_.__struct_config__.tag_field if _is_struct(type_) else None


def _get_tag(type_: Any) -> Any:
    return type_.__struct_config__.tag if _is_struct(type_) else None
