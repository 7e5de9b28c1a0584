"""Progress: the best values of a study, and the number of trials in a row without progress."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.verdict import is_feasible


class Progress:
    """The best values of a study, from the trials that ended.

    Args:
        spec: Specification of the study, with the target and the patience.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._signs = [-1.0 if d == "maximize" else 1.0 for d in spec.directions]
        #: The Pareto front, with signs such that less is better.
        self._front: list[list[float]] = []
        self._worst = [-math.inf] * len(self._signs)
        self._n_without_progress = 0

    @property
    def worst(self) -> list[float] | None:
        """Worst finite value of each objective; None without a complete trial."""
        if not all(map(math.isfinite, self._worst)):
            return None
        return [sign * value for sign, value in zip(self._signs, self._worst, strict=True)]

    @property
    def reason_to_end(self) -> str | None:
        """Why the study needs no more trials; None while the study continues."""
        spec = self._spec
        if spec.target is not None and self._front:
            sign = self._signs[0]
            best = min(values[0] for values in self._front)
            if best <= sign * spec.target:
                return f"{sign * best:g} reaches study.target={spec.target:g}"
        if (
            spec.early_stop_patience is not None
            and self._n_without_progress >= spec.early_stop_patience
        ):
            return (
                f"{self._n_without_progress} trials brought no progress "
                f"(study.early_stop_patience={spec.early_stop_patience})"
            )
        return None

    def restore(self, trials: Iterable[FrozenTrial]) -> None:
        """Add trials that ended before, sorted by the time of the end."""
        for trial in trials:
            self.add_trial(trial.state, trial.values, is_feasible=is_feasible(trial))

    def add_trial(
        self, state: TrialState, values: Sequence[float] | None, *, is_feasible: bool = True
    ) -> None:
        """Add a trial that just ended.

        Args:
            state: State of the trial.
            values: Objective values of a complete trial.
            is_feasible: Whether the trial meets all constraints.
        """
        if state is TrialState.FAIL:
            return
        self._n_without_progress += 1
        if state is not TrialState.COMPLETE or values is None:
            return
        signed = [sign * value for sign, value in zip(self._signs, values, strict=True)]
        self._worst = [
            max(old, new) if math.isfinite(new) else old
            for old, new in zip(self._worst, signed, strict=True)
        ]
        if not is_feasible or any(_covers(other, signed) for other in self._front):
            return
        margin = self._spec.early_stop_min_delta
        with_margin = [value + margin for value in signed]
        if not any(_covers(other, with_margin) for other in self._front):
            self._n_without_progress = 0
        self._front = [other for other in self._front if not _covers(signed, other)] + [signed]


def _covers(values: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(values, other, strict=True))
