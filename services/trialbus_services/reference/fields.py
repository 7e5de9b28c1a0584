"""Fields of structs, dataclasses and other classes: type, default and documentation."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import re
import sys
import time
import types
import typing
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

#: Default of a field that must be given.
REQUIRED = msgspec.NODEFAULT
#: Default of a field that holds the time of creation.
CREATION_TIME = object()

_ARGS = re.compile(r"\nArgs:\n(.*?)(?=\n\w+:\n|\Z)", re.DOTALL)
_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n(?: {6}.*)?$)*)", re.MULTILINE)


@dataclass(frozen=True)
class Field:
    """A field of a struct or dataclass, or an argument of a class."""

    name: str
    """Name of the field."""
    type: Any
    """Type of the field, evaluated."""
    default: Any
    """Default value, `REQUIRED` or `CREATION_TIME`."""
    description: str
    """Meaning of the field in one paragraph; empty for a field without documentation."""


def list_fields(class_: type[Any]) -> list[Field]:
    """Return the fields of a struct or dataclass, or the arguments of any other class.

    The description of a field is the string literal under the field, in the class or in a base
    class. Arguments are described in the section `Args` of the docstring.

    Example:
        >>> list_fields(Field)[0].name
        'name'
    """
    descriptions = describe_fields(class_)
    return [
        Field(name, type_, default, descriptions.get(name, ""))
        for name, type_, default in _iterate_fields(class_)
    ]


@cache
def describe_fields(class_: type[Any]) -> Mapping[str, str]:
    """Return the descriptions of the fields of a class and of the base classes, by field name."""
    has_fields = issubclass(class_, msgspec.Struct) or dataclasses.is_dataclass(class_)
    descriptions: dict[str, str] = {}
    for base in reversed(class_.__mro__):
        if base not in msgspec.Struct.__mro__:
            descriptions |= (
                _read_literals(base) if has_fields else _read_arguments(base.__doc__ or "")
            )
    return descriptions


def format_type(hint: Any, links: Mapping[str, str] | None = None) -> str:
    """Return a type as Markdown, in words in place of Python's notation.

    Args:
        hint: An evaluated annotation.
        links: Addresses of the sections that describe structs, by the name of the struct.

    Example:
        >>> format_type(dict[str, float] | None), format_type(Literal["full", "normal"])
        ('mapping of `float`, or `null`', '`full` or `normal`')
    """
    args = get_args(hint)
    match get_origin(hint):
        case typing.Annotated:
            text = format_type(args[0], links)
        case typing.Literal:
            text = " or ".join(f"`{value}`" for value in args)
        case typing.Union | types.UnionType:
            text = _format_union(args, links or {})
        case builtins.list | builtins.tuple:
            text = _format_container("list", args[0], links)
        case builtins.dict | abc.Mapping:
            text = _format_container("mapping", args[1], links)
        case _:
            name = "any" if hint is Any else hint.__name__
            text = f"[{name}]({links[name]})" if links and name in links else f"`{name}`"
    return text


def format_default(default: Any) -> str:
    """Return a default value as JSON in Markdown, or `required`.

    Example:
        >>> format_default(None), format_default(REQUIRED), format_default([1])
        ('`null`', 'required', '`[1]`')
    """
    if default is REQUIRED:
        return "required"
    if default is CREATION_TIME:
        return "time of creation"
    text = msgspec.json.encode(default).decode()
    return f"`{text}`"


def _iterate_fields(class_: type[Any]) -> Iterator[tuple[str, Any, Any]]:
    if issubclass(class_, msgspec.Struct):
        for field in msgspec.structs.fields(class_):
            yield field.name, field.type, _get_default(field.default, field.default_factory)
    elif dataclasses.is_dataclass(class_):
        hints = get_type_hints(class_)
        for entry in dataclasses.fields(class_):
            default = REQUIRED if entry.default is dataclasses.MISSING else entry.default
            factory = entry.default_factory
            if factory is dataclasses.MISSING:
                factory = REQUIRED
            yield entry.name, hints[entry.name], _get_default(default, factory)
    else:
        hints = get_type_hints(class_.__init__)
        for argument in list(inspect.signature(class_).parameters.values()):
            default = argument.default
            is_required = default is inspect.Parameter.empty
            yield argument.name, hints[argument.name], REQUIRED if is_required else default


def _get_default(default: Any, factory: Any) -> Any:
    if factory is REQUIRED:
        return default
    return CREATION_TIME if factory is time.time else factory()


def _format_container(container: str, content: Any, links: Mapping[str, str] | None) -> str:
    return container if content is Any else f"{container} of {format_type(content, links)}"


def _format_union(members: Sequence[Any], links: Mapping[str, str]) -> str:
    scalars = (bool, int, float, str, type(None))
    if set(members) == set(scalars):
        return "scalar"
    texts = [format_type(member, links) for member in members if member is not type(None)]
    text = " or ".join(texts)
    return f"{text}, or `null`" if type(None) in members else text


def _read_literals(class_: type[Any]) -> dict[str, str]:
    """Return the string literals under the fields in the source of a class, by field name."""
    definition = _parse_module(class_.__module__).get(class_.__qualname__)
    if definition is None:
        return {}
    literals: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                literals[name] = " ".join(text.split())
            case _:
                continue
    return literals


@cache
def _parse_module(name: str) -> dict[str, ast.ClassDef]:
    """Return the definitions of a module's classes by name."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _read_arguments(doc: str) -> dict[str, str]:
    """Return the descriptions of arguments in the section `Args` of a docstring, by name."""
    return {
        name: " ".join(text.split())
        for section in _ARGS.findall(inspect.cleandoc(doc) + "\n")
        for name, text in _ENTRY.findall(section)
    }
