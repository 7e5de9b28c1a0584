"""Params: a trial's parameters, by dotted and by nested names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


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
