"""Params and configurations, by dotted and by nested names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, cast


class Params(Mapping[str, Any]):
    """Parameters of a trial, read-only.

    Its keys are the names that the study gives them, dots and all. A name before a dot leads to a
    view of all that are below it.

    Example:
        >>> params = Params({"lr": 0.1, "model.width": 64, "model.depth": 2})
        >>> params["model.width"], params["model"]["width"], list(params)
        (64, 64, ['lr', 'model.width', 'model.depth'])
        >>> params.nested()
        {'lr': 0.1, 'model': {'width': 64, 'depth': 2}}
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        below = {
            key.removeprefix(f"{name}."): value
            for key, value in self._values.items()
            if key.startswith(f"{name}.")
        }
        if not below:
            raise KeyError(f"{name} (the trial has {', '.join(self._values) or 'no params'})")
        return Params(below)

    def __contains__(self, name: object) -> bool:
        return name in self._values or any(key.startswith(f"{name}.") for key in self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def nested(self) -> dict[str, Any]:
        """Return a nested dict of one's own, as a configuration is nested.

        Raises:
            ValueError: One name is both a value and the beginning of another (`a` and `a.b`).
        """
        found: dict[str, Any] = {}
        for name, value in self._values.items():
            place = found
            above = ""
            *path, last = name.split(".")
            for part in path:
                above = f"{above}.{part}" if above else part
                if above in self._values:
                    raise ValueError(f"param {name!r} lies below {above!r}, which has a value")
                place = place.setdefault(part, {})
            place[last] = value
        return found


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a nested configuration by dotted name.

    A list is one value, and so is an empty mapping. A name in it may be dotted itself.

    Raises:
        ValueError: A name is no text, two names are the same or one lies below the value of
            another, or a value is none that JSON can hold.

    Example:
        >>> flatten_config({"model": {"width": 64, "sizes": [3, 5]}, "env.name": "maze"})
        {'model.width': 64, 'model.sizes': [3, 5], 'env.name': 'maze'}
    """
    found: dict[str, Any] = {}
    for name, value in _leaves("", config):
        if name in found:
            raise ValueError(f"{name} is there twice (expected once)")
        found[name] = value
    for name in found:
        for above in _above(name):
            if above in found:
                raise ValueError(f"{name} lies below {above}, which has a value")
    return found


def merge_configs(below: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted name with others laid over them.

    A value takes the place of the one of its name, of all below it, and of one it lies below.
    """
    names = set(values)  # what is `in` a `Params` is more than its names
    covered = names.union(*(_above(name) for name in names))
    kept = {
        name: value
        for name, value in below.items()
        if name not in covered and names.isdisjoint(_above(name))
    }
    return {**kept, **values}


def _leaves(above: str, config: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{above}{key}"
        if not isinstance(key, str) or not all(key.split(".")):
            raise ValueError(f"{name} has the key {key!r} (expected a name)")
        if _is_mapping(value) and value:
            yield from _leaves(f"{name}.", value)
        else:
            _check_value(name, value)
            yield name, value


def _check_value(name: str, value: Any) -> None:
    match value:
        case None | bool() | str():
            return
        case int() if -(2**63) <= value < 2**64:
            return
        case float() if math.isfinite(value):
            return
        case list():
            for i, entry in enumerate(cast(Any, value)):
                _check_value(f"{name}[{i}]", entry)
        case dict():
            for key, entry in cast(Any, value).items():
                if not isinstance(key, str):
                    raise ValueError(f"{name} has the key {key!r} (expected text)")  # noqa: TRY004
                _check_value(f"{name}.{key}", entry)
        case _:
            raise ValueError(
                f"{name} is {value!r} (expected a finite number, text, true, false, null, a list "
                "or a mapping by names)"
            )


def _above(name: str) -> list[str]:
    """Return the names that a dotted name lies below."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)
