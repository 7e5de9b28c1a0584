"""How far a study has come: its best values, and how long they have been the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.trial import TrialState

from trialbus.study.spec import StudySpec


class Progress:
    """Takes in trials in the order in which they ended."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._signs = [-1.0 if d == "maximize" else 1.0 for d in spec.directions]
        #: Values of which none is better in everything than another; less is better here.
        self._front: list[list[float]] = []
        self._worst = [-math.inf] * len(self._signs)
        self._without = 0

    @property
    def worst(self) -> list[float] | None:
        """The worst finite value of each objective; None without a complete trial."""
        if not all(map(math.isfinite, self._worst)):
            return None
        return [sign * value for sign, value in zip(self._signs, self._worst, strict=True)]

    @property
    def converged(self) -> str | None:
        """Why the study needs no more trials, if it does not."""
        spec = self._spec
        if spec.target is not None and self._front:
            sign = self._signs[0]
            best = min(values[0] for values in self._front)
            if best <= sign * spec.target:
                return f"{sign * best:g} reaches study.target={spec.target:g}"
        if spec.early_stop_patience is not None and self._without >= spec.early_stop_patience:
            return (
                f"{self._without} trials brought no progress "
                f"(study.early_stop_patience={spec.early_stop_patience})"
            )
        return None

    def take(
        self, state: TrialState, values: Sequence[float] | None, *, feasible: bool = True
    ) -> None:
        """Take in how a trial ended.

        Args:
            state: How.
            values: Its objective values, if it is complete.
            feasible: Whether it meets all constraints.
        """
        if state is TrialState.FAIL:
            return
        self._without += 1
        if state is not TrialState.COMPLETE or values is None:
            return
        turned = [sign * value for sign, value in zip(self._signs, values, strict=True)]
        self._worst = [
            max(old, new) if math.isfinite(new) else old
            for old, new in zip(self._worst, turned, strict=True)
        ]
        if not feasible or any(_covers(other, turned) for other in self._front):
            return
        margin = self._spec.early_stop_min_delta
        nearly = [value + margin for value in turned]
        if not any(_covers(other, nearly) for other in self._front):
            self._without = 0
        self._front = [other for other in self._front if not _covers(turned, other)] + [turned]


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
