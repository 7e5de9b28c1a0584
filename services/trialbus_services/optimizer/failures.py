"""Failures: failed trials of a study, the limits at which they end the study, and other faults."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import ERROR


class Failures:
    """Failed trials of a study since the newest submission.

    Args:
        spec: Specification of the study, with the limits.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._in_a_row = 0
        #: Number and error of the first trial that failed; None before.
        self.first: str | None = None
        self._missing: str | None = None
        self._fault: str | None = None
        self.last_error: str | None = None

    @property
    def reason_to_end(self) -> str | None:
        """Why failures end the study; None while the study may go on."""
        spec = self._spec
        if self._fault is not None:
            return self._fault
        if self._missing is not None:
            return f"{self._missing} (study.on_missing_metric=stop)"
        if not spec.catch_exceptions and self.first is not None:
            return f"{self.first} (study.catch_exceptions=false)"
        if spec.max_failures is not None and self._in_a_row >= spec.max_failures:
            return (
                f"{self._in_a_row} trials in a row failed "
                f"(study.max_failures={spec.max_failures}); the last one: {self.last_error}"
            )
        return None

    def add_trial(self, number: int, state: TrialState, error: str | None) -> None:
        """Add a trial that just ended.

        Args:
            number: Number of the trial.
            state: State of the trial.
            error: Error of a failed trial.
        """
        if state is not TrialState.FAIL:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        self.last_error = error
        self.first = self.first or f"trial {number} failed: {error}"

    def add_fault(self, error: str) -> None:
        """Add an error without which no new trial can begin; running trials may finish."""
        self._fault = self._fault or error

    def add_missing_metric(self, number: int, error: str | None) -> None:
        """Add a trial without the objective's metric, which no trial of the study ever reported."""
        if self._spec.on_missing_metric == "stop" and self._missing is None:
            self._missing = f"trial {number} failed: {error}"

    def restore(self, trials: list[FrozenTrial], n_failed_before: int) -> None:
        """Add trials that ended before, without the failures before the submission.

        Args:
            trials: The trials, sorted by the time of the end.
            n_failed_before: Number of trials that had failed before the submission.
        """
        for trial in trials:
            if trial.state is TrialState.FAIL and n_failed_before > 0:
                n_failed_before -= 1
                continue
            self.add_trial(trial.number, trial.state, trial.user_attrs.get(ERROR))
