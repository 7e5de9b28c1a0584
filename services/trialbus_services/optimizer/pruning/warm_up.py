"""Warm-up of pruners beside the budget of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trialbus.study.spec import StudySpec
from trialbus.study.validation import is_mapping

_WARM_UP = ("n_warmup_steps", "n_startup_steps")


def find_warm_up_problem(spec: StudySpec) -> str | None:
    """Return what to say where a warm-up keeps the pruner from ever pruning, as far as is known.

    Pruners count in the unit of `trial.report`'s steps, which is the budget's if the trainer says
    so. It may report in another one, so this is no mistake for certain.
    """
    if spec.budget is None or spec.pruner is None:
        return None
    for key, steps in _warm_ups("pruner", spec.pruner.args):
        if steps >= spec.budget:
            return (
                f"{key}={steps} is not below study.budget={spec.budget}: where trials report "
                "steps up to their budget, none is ever pruned. Warm-up counts in the unit of the "
                "steps that are reported"
            )
    return None


def _warm_ups(key: str, args: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in args.items():
        if name in _WARM_UP and isinstance(value, int):
            yield f"{key}.{name}", value
        elif is_mapping(value):
            yield from _warm_ups(f"{key}.{name}", value)
