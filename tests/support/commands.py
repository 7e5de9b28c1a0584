"""Command lines of studies that need nothing but this folder's trainer."""

from __future__ import annotations

import sys

from support import trainer

PARAMS = "{x: {type: float, low: -2, high: 2}}"
N_TRIALS = 8


def small_study(
    steps: int = 5, step_s: float = 0.1, how: str = "end", name: str = "quadratic", **study: object
) -> list[str]:
    """Return the overrides of a study over one param that takes about `steps * step_s` a trial."""
    changes = {"n_trials": N_TRIALS} | study
    return [
        f"trainer.command=[{sys.executable},{trainer.__file__},'{steps}','{step_s}',{how}]",
        f"study.name={name}",
        "~study.params",
        f"+study.params={PARAMS}",
        "study.objective.metric=loss",
        "study.objective.direction=minimize",
        "pruner=none",
        "sampler=random",
        *(f"study.{key}={value}" for key, value in changes.items()),
    ]
