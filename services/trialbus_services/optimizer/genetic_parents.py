"""Parents of genetic samplers: trial ids in the system attributes of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_PARENTS = ":parent:"


def renumber_parents(
    attrs: Mapping[str, Any], get_new: Callable[[int], int | None]
) -> dict[str, Any]:
    """Return a study's system attributes with new ids for the parents of each generation.

    Genetic samplers keep the parents in system attributes, as a list of trial ids. An id has a
    meaning only in the storage that gave it.

    Args:
        attrs: The attributes.
        get_new: Returns the new id of a trial by the old id; None leaves the trial out.

    Source:
        `optuna.samplers._ga._base.BaseGASampler.get_parent_population`.
    """
    return {
        key: [n for old in value if (n := get_new(old)) is not None] if _PARENTS in key else value
        for key, value in attrs.items()
    }
