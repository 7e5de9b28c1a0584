"""Command lines of studies that run the trainer in this folder."""

from __future__ import annotations

import sys

from support import trainer

PARAMS = "{x: {type: float, low: -2, high: 2}}"
N_TRIALS = 8


def small_study(
    steps: int = 5,
    step_s: float = 0.1,
    ending: str = "end",
    name: str = "quadratic",
    **study: object,
) -> list[str]:
    """Return the overrides of a study of a single param, with trials of about `steps * step_s`."""
    fields = {"n_trials": N_TRIALS} | study
    return [
        f"trainer.command=[{sys.executable},{trainer.__file__},'{steps}','{step_s}',{ending}]",
        f"study.name={name}",
        "~study.params",
        f"+study.params={PARAMS}",
        "study.objective.metric=loss",
        "study.objective.direction=minimize",
        "pruner=none",
        "sampler=random",
        *(f"study.{key}={value}" for key, value in fields.items()),
    ]
