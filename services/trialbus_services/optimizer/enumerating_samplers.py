"""Samplers that enumerate a finite space: Optuna's, without a bookkeeping of their own.

Optuna's `GridSampler` and `BruteForceSampler` fail on trials that they did not make themselves, and
suggest points again that other trials run. Which points are taken is therefore kept beside them,
in `sampling.coverage`; Optuna's classes give the order of the points, and the attributes from which
plain Optuna goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import optuna
from optuna.samplers import BruteForceSampler, GridSampler
from optuna.trial import FrozenTrial, TrialState


class Grid(GridSampler):
    """Optuna's grid; a study asks the grid for its points and never for a suggestion."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Leave the choice of a point to the study."""

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Leave the end of the grid to the study."""

    def list_points(self) -> list[dict[str, Any]]:
        """Return the params of all points, in the order in which plain Optuna suggests them."""
        points = cast("list[tuple[Any, ...]]", self._all_grids)  # pyright: ignore[reportUnknownMemberType]
        return [dict(zip(self._param_names, point, strict=True)) for point in points]

    def describe_point(self, index: int) -> dict[str, Any]:
        """Return the system attributes that tell plain Optuna which point a trial has.

        Args:
            index: Index of the point in `list_points`.
        """
        space = cast("dict[str, list[Any]]", self._search_space)  # pyright: ignore[reportUnknownMemberType]
        return {"search_space": space, "grid_id": index}


class BruteForce(BruteForceSampler):
    """Optuna's exhaustive sampler, whose study tells when all points are taken."""

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Leave the end of the space to the study."""
