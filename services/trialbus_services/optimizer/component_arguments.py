"""Arguments of samplers and pruners: checked by the annotations of the class, before it is called.

Optuna's classes accept any argument and fail at a later trial. Annotations of plain types say
before that what an argument has to be.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Union

import msgspec

from trialbus.errors import SpecError
from trialbus.study.spec_limits import check_seed
from trialbus.study.validation import format_expected

_PLAIN_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "None": None,
    "dict": dict,
    "dict[str, Any]": dict[str, Any],
    "list": list,
}


def list_arguments(class_: type) -> list[str]:
    """Return the names of a class' arguments."""
    return [name for name in _read_parameters(class_) if name not in {"self", "args", "kwargs"}]


def check_arguments(key: str, class_: type, args: Mapping[str, Any]) -> None:
    """Check the names and, where the class annotates plain types, the types of arguments.

    Args:
        key: Dotted key of the component, for the error.
        class_: Class that is called with the arguments.
        args: Arguments by name.

    Raises:
        SpecError: An argument does not exist, or has a wrong type; names the key and the value.
    """
    parameters = _read_parameters(class_)
    known = list_arguments(class_)
    for name, value in args.items():
        if name not in known:
            raise SpecError(
                f"{key}.{name}",
                f"{class_.__name__} has no such argument{format_expected(name, known)}",
            )
        annotation = _format_annotation(parameters[name].annotation)
        if annotation.startswith("Callable") and isinstance(value, str):
            raise SpecError(
                f"{key}.{name}",
                f"{value!r} is text, and {class_.__name__} needs a function, which a configuration "
                "cannot give (expected null, or a class of your own that has the function)",
            )
        members = [member.strip() for member in annotation.split("|")]
        if value is None or not all(member in _PLAIN_TYPES for member in members):
            continue
        try:
            msgspec.convert(value, Union[*(_PLAIN_TYPES[member] for member in members)])
        except msgspec.ValidationError:
            raise SpecError(
                f"{key}.{name}", f"{value!r} is not an argument of {class_.__name__} "
                f"(expected {annotation.replace('None', 'null')})"
            ) from None  # fmt: skip
    try:
        check_seed("seed", args.get("seed"))
    except ValueError as error:
        raise SpecError(f"{key}.seed", str(error).removeprefix("seed ")) from None


def _read_parameters(class_: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(class_).parameters


def _format_annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
