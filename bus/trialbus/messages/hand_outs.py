"""HandOuts: which of several assignments of a trial counts, in the order of the log.

An optimizer that was killed may leave an assignment in shared memory, which is sent after the next
optimizer has handed the same trial out again. Whoever reads the log sees both in the same order,
and decides alike: an assignment counts unless the log has one of a later attempt before it.
"""

from __future__ import annotations

from trialbus.messages.trial_events import TrialAssigned


class HandOuts:
    """The newest attempt of each trial that the log hands out."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, int], tuple[int, str]] = {}

    def is_void(self, event: TrialAssigned) -> bool:
        """Tell whether a later attempt, or this attempt for another request, was handed out."""
        attempt, request = self._newest.get((event.study, event.trial), (-1, ""))
        return event.attempt < attempt or (event.attempt == attempt and event.request != request)

    def add(self, event: TrialAssigned) -> bool:
        """Add the next assignment of the log; return False if the assignment is void."""
        if self.is_void(event):
            return False
        self._newest[event.study, event.trial] = event.attempt, event.request
        return True

    def find_next_attempt(self, study: str, trial: int) -> int:
        """Return the lowest attempt of a trial that was not handed out."""
        return self._newest.get((study, trial), (-1, ""))[0] + 1
