"""Coverage: which points of a study's search space are taken, and which are free."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.samplers import RandomSampler

from trialbus.errors import SpecError
from trialbus.study.conditions import find_unmet_condition
from trialbus.study.search_space import CategoricalParam
from trialbus.study.spec import DuplicatePolicy, StudySpec
from trialbus_services.optimizer.distributions import list_values
from trialbus_services.optimizer.param_constraints import parse_constraints
from trialbus_services.optimizer.registry import is_enumerating
from trialbus_services.optimizer.sampling.points import Point, PointSpace, Values

_MAX_LISTED = 100_000  # points; in a larger space a free point is found by drawing
_DRAWS = 10_000


class Coverage:
    """The points of a study that trials took, and the free points that meet the constraints.

    A point is taken by the first trial with its params, whatever becomes of the trial: a failed
    trial took its point too.

    Args:
        spec: Specification of the study.
        grid: Params of every point to cover, in order; None for all points of the search space, in
            an order that follows from the study's seed.
    """

    def __init__(self, spec: StudySpec, grid: Sequence[Mapping[str, Any]] | None = None) -> None:
        self._space = spec.space
        self._pinned = get_pinned_params(spec)
        self._constraints = parse_constraints(spec)
        self.points = PointSpace(self._space)
        self._takers: dict[Point, int] = {}
        self._sampler = RandomSampler(seed=spec.seed)
        self._random = random.Random(spec.seed)  # noqa: S311 - an order, no secret
        self._grid = grid
        self._values = self._list_all_values()
        self._n_points = len(grid) if grid is not None else self.points.count(self._values)
        self._listed: list[Point] | None = None  # by `_list_points`, where points are asked for
        self._untaken: set[Point] = set()
        self._first = 0

    @property
    def n_free(self) -> int | None:
        """Number of points that no trial took; None where there are infinitely many.

        In a space of more than 100,000 points that constraints restrict, the number is not known
        and counts as infinite.
        """
        if self._list_points() is not None:
            return len(self._untaken)
        if self._n_points is None or self._constraints.of_params:
            return None
        return self._n_points - len(self._takers)

    @property
    def n_points(self) -> int | None:
        """Number of points that meet the constraints; None where the number is not known."""
        if self._grid is None and not self._constraints.of_params:
            return self._n_points
        listed = self._list_points()
        if listed is not None:
            return len(listed)
        return None if self._constraints.of_params else self._n_points

    def take(self, params: Mapping[str, Any], number: int) -> None:
        """Let a trial take the point of its params; params that are no point are ignored."""
        point = self.points.locate(params)
        if point is not None:
            self._takers.setdefault(point, number)
            self._untaken.discard(point)

    def find_taker(self, params: Mapping[str, Any]) -> int | None:
        """Return the trial that took the point of the params, or None."""
        point = self.points.locate(params)
        return None if point is None else self._takers.get(point)

    def is_beside(self, params: Mapping[str, Any]) -> bool:
        """Tell whether params are a point of the search space that a grid leaves out."""
        point = self.points.locate(params)
        return point is not None and point not in self._takers and point not in self._untaken

    def find_violated(self, params: Mapping[str, Any]) -> str | None:
        """Return the text of a constraint over params alone that the params violate, or None."""
        constraint = self._constraints.find_violated(params)
        return None if constraint is None else f"{constraint.key} {constraint.text!r}"

    def find_point(
        self, fixed: Mapping[str, Any] | None = None, *, is_free: bool
    ) -> dict[str, Any] | None:
        """Return the params of a point that meets the constraints; None if none was found.

        Args:
            fixed: Values that the point has to have.
            is_free: Whether no trial may have taken the point.
        """
        wanted = {**self._pinned, **(fixed or {})}
        listed = self._list_points()
        if listed is None:
            return self._draw(wanted, is_free=is_free)
        if not all(self._space[name].contains(value) for name, value in wanted.items()):
            return None
        encode = self.points.encode
        coordinates = {name: encode(name, value) for name, value in wanted.items()}
        for params in self._iterate_listed(listed, is_free=is_free):
            if all(
                name not in params or encode(name, params[name]) == coordinate
                for name, coordinate in coordinates.items()
            ):
                return params
        return None

    def _iterate_listed(self, listed: list[Point], *, is_free: bool) -> Iterator[dict[str, Any]]:
        if not is_free:
            yield from map(self.points.make_params, self._random.sample(listed, len(listed)))
            return
        while self._first < len(listed) and listed[self._first] not in self._untaken:
            self._first += 1  # the points before are taken for good
        for index in range(self._first, len(listed)):
            if listed[index] in self._untaken:
                yield self.points.make_params(listed[index])

    def _draw(self, wanted: Mapping[str, Any], *, is_free: bool) -> dict[str, Any] | None:
        for _ in range(_DRAWS):
            params: dict[str, Any] = {}
            for name, param in self._space.items():
                if find_unmet_condition(param, params) is None:
                    params[name] = (
                        param.encode(wanted[name]) if name in wanted else self._draw_value(name)
                    )
            is_taken = is_free and self.find_taker(params) is not None
            if not is_taken and self.find_violated(params) is None:
                return params
        return None

    def _draw_value(self, name: str) -> Any:
        distribution = self.points.distributions[name]
        # The study and the trial are not used.
        value = self._sampler.sample_independent(None, None, name, distribution)  # pyright: ignore[reportArgumentType]
        return distribution.to_external_repr(distribution.to_internal_repr(value))

    def _list_all_values(self) -> Values:
        values: dict[str, Sequence[Any]] = {}
        for name, param in self._space.items():
            listed = [self._pinned[name]] if name in self._pinned else list_values(param)
            if listed is not None:
                values[name] = listed
        return values

    def _list_points(self) -> list[Point] | None:
        """Return the points that meet the constraints; None if they are too many to be listed.

        The list is made when points are asked for the first time: most studies never ask, and it
        takes half a second and 20 MB for the largest space.
        """
        is_small = self._n_points is not None and self._n_points <= _MAX_LISTED
        if self._listed is not None or not (is_small or self._grid is not None):
            return self._listed
        located = (
            self.points.locate(params)
            for params in (self.points.iterate(self._values) if self._grid is None else self._grid)
            if self._constraints.find_violated(params) is None
        )
        self._listed = list(dict.fromkeys(point for point in located if point is not None))
        if self._grid is None:
            self._random.shuffle(self._listed)
        self._untaken = set(self._listed) - self._takers.keys()
        return self._listed


def get_pinned_params(spec: StudySpec) -> Mapping[str, Any]:
    """Return the params that a `PartialFixedSampler` gives the same value in every trial."""
    if spec.sampler.type != "PartialFixedSampler":
        return {}
    return spec.sampler.args.get("fixed_params") or {}


def get_duplicate_policy(spec: StudySpec) -> DuplicatePolicy:
    """Return what a suggestion is worth whose params an earlier trial had."""
    if spec.duplicates is not None:
        return spec.duplicates
    params = spec.params.values()
    is_categorical = all(isinstance(param, CategoricalParam) for param in params)
    # A space of a single point is tried again on purpose, with other seeds.
    has_choice = any(isinstance(p, CategoricalParam) and len(p.choices) > 1 for p in params)
    return "skip" if is_enumerating(spec.sampler) or (is_categorical and has_choice) else "allow"


def check_points(spec: StudySpec) -> None:
    """Check that some point of a study's search space meets the constraints over params.

    Raises:
        SpecError: No point of a finite space meets the constraints, or none of many random points.
    """
    constraints = parse_constraints(spec).of_params
    if constraints and Coverage(spec).find_point(is_free=False) is None:
        raise SpecError(
            "study.constraints",
            f"{', '.join(repr(c.text) for c in constraints)}: no params were found that meet the "
            "constraints (expected constraints that more of the search space meets)",
        )
