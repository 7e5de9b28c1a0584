"""Nested configurations: params and configurations by dotted and by nested names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trialbus.study.validation import is_mapping
from trialbus.study.values import check_value


class Params(Mapping[str, Any]):
    """Params of a trial, read-only.

    The keys are the full names of the params (`model.width`). The part of a name before a dot
    (`model`) gives all params below that part, as `Params`.

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
        """Return the params as a new nested dict.

        A name that lies below another param keeps its full name: `model` may choose a group of
        Hydra, in which `model.width` is a value.

        Example:
            >>> Params({"model": "large", "model.width": 64, "optimizer.lr": 0.1}).nested()
            {'model': 'large', 'model.width': 64, 'optimizer': {'lr': 0.1}}
        """
        nested: dict[str, Any] = {}
        for name, value in self._values.items():
            if not self._values.keys().isdisjoint(_list_parents(name)):
                nested[name] = value
                continue
            section = nested
            *parts, last = name.split(".")
            for part in parts:
                section = section.setdefault(part, {})
            section[last] = value
        return nested


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a nested configuration by dotted name.

    Lists and empty mappings are values. Keys of the configuration may be dotted names.

    Raises:
        ValueError: A key is no text, a name occurs twice or lies below another name with a value,
            or a value cannot travel (see `values.check_value`).

    Example:
        >>> flatten_config({"model": {"width": 64, "sizes": [3, 5]}, "env.name": "maze"})
        {'model.width': 64, 'model.sizes': [3, 5], 'env.name': 'maze'}
    """
    values: dict[str, Any] = {}
    for name, value in _walk_values("", config):
        if name in values:
            raise ValueError(f"{name} is given twice (expected once)")
        values[name] = value
    for name in values:
        for parent in _list_parents(name):
            if parent in values:
                raise ValueError(f"{name} lies below {parent}, which has a value")
    return values


def merge_configs(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two flat configurations by dotted name; overrides replace values of the base.

    An override replaces the value of the same name, all values below that name, and a value that
    the name lies below.
    """
    names = set(overrides)  # `in overrides` would also be true of `model` in `Params`
    replaced = names.union(*(_list_parents(name) for name in names))
    kept = {
        name: value
        for name, value in base.items()
        if name not in replaced and names.isdisjoint(_list_parents(name))
    }
    return {**kept, **overrides}


def _walk_values(prefix: str, config: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str) or not all(key.split(".")):
            raise ValueError(f"{name} has the key {key!r} (expected a name)")
        if is_mapping(value) and value:
            yield from _walk_values(f"{name}.", value)
        else:
            check_value(name, value)
            yield name, value


def _list_parents(name: str) -> list[str]:
    """Return the names that a dotted name lies below, the shortest name first."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
