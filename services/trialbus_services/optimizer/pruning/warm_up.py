"""Warm-up: the first steps, without pruning, compared with the study's budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trialbus.study.spec import StudySpec
from trialbus.study.validation import is_mapping

_WARM_UP = ("n_warmup_steps", "n_startup_steps")


def find_warm_up_problem(spec: StudySpec) -> str | None:
    """Return a warning if the pruner's warm-up takes the whole budget, so that no trial is pruned.

    A warning only: pruners count the steps of `trial.report`, whose unit may differ from the unit
    of the budget.
    """
    if spec.budget is None or spec.pruner is None:
        return None
    for key, steps in _find_warm_ups("pruner", spec.pruner.args):
        if steps >= spec.budget:
            return (
                f"{key}={steps} is not below study.budget={spec.budget}: if trials report steps up "
                "to their budget, no trial is ever pruned (warm-up counts reported steps)"
            )
    return None


def _find_warm_ups(key: str, args: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in args.items():
        if name in _WARM_UP and isinstance(value, int):
            yield f"{key}.{name}", value
        elif is_mapping(value):
            yield from _find_warm_ups(f"{key}.{name}", value)
