"""HandOuts: which of several assignments counts, in the order of the log.

An optimizer that was killed may leave an assignment in shared memory, which is sent after the next
optimizer has handed the same trial out again, or has answered the same request with another trial.
Whoever reads the log sees both in the same order, and decides alike: an assignment counts unless
the log has before it one of a later attempt, or another answer to its request.
"""

from __future__ import annotations

from trialbus.messages.trial_events import TrialAssigned


class HandOuts:
    """The newest attempt of each trial that the log hands out, and the answer to each request."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, int], tuple[int, str]] = {}
        self._answers: dict[str, tuple[str, int, int]] = {}

    def is_answered(self, request: str) -> bool:
        """Tell whether an assignment that counts answers a request."""
        return request in self._answers

    def is_void(self, event: TrialAssigned) -> bool:
        """Tell whether an assignment does not count.

        The log has the same attempt for another request before it, or a later attempt of the trial,
        or another answer to the request.
        """
        answer = self._answers.get(event.request)
        if answer is not None:
            return answer != (event.study, event.trial, event.attempt)
        attempt, request = self._newest.get((event.study, event.trial), (-1, ""))
        return event.attempt < attempt or (event.attempt == attempt and event.request != request)

    def add(self, event: TrialAssigned) -> bool:
        """Add the next assignment of the log; return False if the assignment is void."""
        if self.is_void(event):
            return False
        if not self.is_answered(event.request):
            self._newest[event.study, event.trial] = event.attempt, event.request
        if event.request:  # else nobody requested the trial
            self._answers[event.request] = event.study, event.trial, event.attempt
        return True

    def find_next_attempt(self, study: str, trial: int) -> int:
        """Return the lowest attempt of a trial that was not handed out."""
        return self._newest.get((study, trial), (-1, ""))[0] + 1
