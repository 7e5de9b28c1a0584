"""Failed trials, and when there are too many of them."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import ERROR


class Failures:
    """Failed trials of a study since it was submitted; takes in trials in the order they ended."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._in_a_row = 0
        self._first: str | None = None
        self.last_error: str | None = None

    @property
    def too_many(self) -> str | None:
        """Why the study has to end, if it has to."""
        spec = self._spec
        if not spec.catch_exceptions and self._first is not None:
            return f"{self._first} (study.catch_exceptions=false)"
        if spec.max_failures is not None and self._in_a_row >= spec.max_failures:
            return (
                f"{self._in_a_row} trials in a row failed "
                f"(study.max_failures={spec.max_failures}); the last one: {self.last_error}"
            )
        return None

    def take(self, number: int, state: TrialState, error: str | None) -> None:
        """Take in how a trial ended, and why if it failed."""
        if state is not TrialState.FAIL:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        self.last_error = error
        self._first = self._first or f"trial {number} failed: {error}"

    def restore(self, ended: list[FrozenTrial], n_before: int) -> None:
        """Take in the trials that a storage has, but for failed ones before the submission."""
        for trial in ended:
            if trial.state is TrialState.FAIL and n_before > 0:
                n_before -= 1
                continue
            self.take(trial.number, trial.state, trial.user_attrs.get(ERROR))
