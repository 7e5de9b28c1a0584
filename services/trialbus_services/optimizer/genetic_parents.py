"""Trials that genetic samplers name in the attributes of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_PARENTS = ":parent:"


def renumbered(attrs: Mapping[str, Any], new: Callable[[int], int | None]) -> dict[str, Any]:
    """Return system attributes of a study with the trials they name called otherwise.

    Genetic samplers keep the parents of each generation there, as a list of trial ids. An id means
    something only in the storage that gave it.

    Args:
        attrs: The attributes.
        new: The new name of a trial, from its old one; None leaves it out.

    Source:
        `optuna.samplers._ga._base.BaseGASampler.get_parent_population`.
    """
    return {
        key: [n for old in value if (n := new(old)) is not None] if _PARENTS in key else value
        for key, value in attrs.items()
    }
