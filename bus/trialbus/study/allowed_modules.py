"""Allowed modules: what an operator lets a process import whose name comes from a study.

A study comes from anyone who may submit one, and an import runs the code of a module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from trialbus.errors import SpecError
from trialbus.study.validation import is_mapping

_NAME = re.compile(r"\w+(\.\w+)*")


def normalize_path(path: str) -> str:
    """Return the import path of a class, or the name of a module or package, with dots only."""
    return path.replace(":", ".").replace("/", ".")


def normalize_modules(key: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of allowed modules, with dots only.

    Args:
        key: Key that has the names, for the error.
        names: Dotted names of packages, modules or classes.

    Raises:
        SpecError: A name is not a dotted name.
    """
    normalized = tuple(map(normalize_path, names))
    for name in normalized:
        if not _NAME.fullmatch(name):
            raise SpecError(
                key, f"{name!r} is not the name of a module (expected, for example, my_package)"
            )
    return normalized


def contain(names: Iterable[str], path: str) -> bool:
    """Tell whether one of the modules, or a module in them, has the class of an import path."""
    dotted = normalize_path(path)
    return any(dotted == name or dotted.startswith(f"{name}.") for name in names)


def find_targets(config: Any) -> Iterator[str]:
    """Yield the import paths that a configuration names by `_target_`, at any depth.

    Keys may be nested or dotted.
    """
    if is_mapping(config):
        for key, value in config.items():
            is_target = key.rpartition(".")[2] == "_target_" and isinstance(value, str)
            if is_target and _NAME.fullmatch(normalize_path(value)):
                yield value
            yield from find_targets(value)
    elif isinstance(config, list | tuple):
        for value in config:  # pyright: ignore[reportUnknownVariableType]
            yield from find_targets(value)
