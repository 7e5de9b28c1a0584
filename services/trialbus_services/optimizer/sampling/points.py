"""Points of a search space: the params of a trial as a key that is equal for equal trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution, FloatDistribution

from trialbus.study.conditions import find_unmet_condition
from trialbus.study.search_space import FloatParam, Param
from trialbus_services.optimizer.distributions import list_values, make_distribution

Point: TypeAlias = tuple[float | None, ...]
"""Coordinate of each param in the order of the space; None for a param left out.

That is Optuna's internal value, and the number of steps for a float with a step.
"""

Values: TypeAlias = Mapping[str, Sequence[Any]]
"""Values by param, to enumerate."""

_MAX_BRANCHES = 10_000  # of params that conditions name; a space with more counts as infinite


class PointSpace:
    """The points of a search space.

    Args:
        space: A search space in the order of its conditions, as `StudySpec.space` is.
    """

    def __init__(self, space: Mapping[str, Param]) -> None:
        self._space = space
        self._distributions = {name: make_distribution(param) for name, param in space.items()}
        #: Values of each float with a step; sums of steps are rounded differently elsewhere.
        self._steps = {
            name: list_values(param) or ()
            for name, param in space.items()
            if isinstance(param, FloatParam) and param.step is not None
        }
        self._branching = {name for param in space.values() for name in param.when}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Distributions by param, in the order of the space."""
        return self._distributions

    def locate(self, params: Mapping[str, Any]) -> Point | None:
        """Return the point of a trial's params; None if the params are not a point of the space.

        A param with a single value may be missing, as in a trial that a person added.
        """
        complete = self.complete(params)
        if complete is None:
            return None
        return tuple(
            self.encode(name, complete[name]) if name in complete else None
            for name in self._distributions
        )

    def encode(self, name: str, value: Any) -> float:
        """Return the coordinate of a param's value: equal for values that mean the same."""
        distribution = self._distributions[name]
        internal = distribution.to_internal_repr(self._space[name].encode(value))
        if name in self._steps and isinstance(distribution, FloatDistribution):
            return round((internal - distribution.low) / (distribution.step or 1.0))
        return internal

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the params of a point with the params that have a single value, in order.

        Returns:
            None if the params are not a point of the space.
        """
        values: dict[str, Any] = {}
        for name, param in self._space.items():
            if find_unmet_condition(param, values) is not None:
                continue
            if name in params:
                if not param.contains(params[name]):
                    return None
                values[name] = param.encode(params[name])
            else:
                single = _get_single_value(param)
                if single is None:
                    return None
                values[name] = single[0]
        return values if all(name in values for name in params) else None

    def find_outside(self, params: Mapping[str, Any]) -> str | None:
        """Return the name of the first param whose value the space does not have, or None."""
        return next(
            (name for name, value in params.items() if not self._space[name].contains(value)), None
        )

    def make_params(self, point: Point) -> dict[str, Any]:
        """Return the params of a point."""
        return {
            name: self._steps[name][int(value)]
            if name in self._steps
            else distribution.to_external_repr(value)
            for (name, distribution), value in zip(self._distributions.items(), point, strict=True)
            if value is not None
        }

    def count(self, values: Values) -> int | None:
        """Return the number of points with the given values; None for infinitely many.

        A space whose conditions branch too often to be counted counts as infinite.
        """
        budget = _MAX_BRANCHES

        def count_from(index: int, chosen: Mapping[str, Any]) -> float:
            nonlocal budget
            budget -= 1
            if budget < 0:
                return math.inf
            if index == len(names):
                return 1
            name = names[index]
            if find_unmet_condition(self._space[name], chosen) is not None:
                return count_from(index + 1, chosen)
            if name not in values:
                return math.inf
            if name not in self._branching:
                return len(values[name]) * count_from(index + 1, chosen)
            total = 0.0
            for value in values[name]:
                total += count_from(index + 1, {**chosen, name: value})
                if math.isinf(total):
                    break
            return total

        names = list(self._space)
        total = count_from(0, {})
        return None if math.isinf(total) else int(total)

    def iterate(self, values: Values) -> Iterator[dict[str, Any]]:
        """Yield the params of each point with the given values, in the order of the values."""
        names = list(self._space)

        def iterate_from(index: int, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if index == len(names):
                yield chosen
                return
            name = names[index]
            if find_unmet_condition(self._space[name], chosen) is not None:
                yield from iterate_from(index + 1, chosen)
                return
            for value in values[name]:
                yield from iterate_from(index + 1, {**chosen, name: value})

        return iterate_from(0, {})


def _get_single_value(param: Param) -> tuple[Any] | None:
    values = list_values(param)
    return (values[0],) if values is not None and len(values) == 1 else None
