"""Failures of a sweep: the share of failed trials at which a sweep ends."""

from __future__ import annotations

from trialbus.errors import TrialbusError
from trialbus.messages import events


class TooManyFailuresError(TrialbusError):
    """More trials of a sweep have failed than `hydra.sweeper.max_failure_rate` allows.

    Args:
        failed: Number of failed trials of this call.
        ended: Number of trials of this call that have ended.
        rate: The allowed share.
        last: The last trial that failed.
    """

    def __init__(self, failed: int, ended: int, rate: float, last: events.TrialClosed) -> None:
        super().__init__(
            f"{failed} of {ended} trials failed (hydra.sweeper.max_failure_rate={rate:g}); "
            f"trial {last.trial} failed last, as {last.cause}:\n{last.error or ''}".rstrip()
        )


class FailureWatch:
    """Counts the trials of a sweep that ended, and those that failed.

    Args:
        rate: Share of failed trials above which the sweep ends.
        least: Number of trials that count at least as ended: those of a batch, for a sweeper that
            runs batches.
    """

    def __init__(self, rate: float, least: int) -> None:
        self._rate = rate
        self._least = least
        self._ended = 0
        self._failed = 0

    def follow(self, event: events.AnyEvent | None) -> None:
        """Count the end of a trial.

        Raises:
            TooManyFailuresError: Too many trials have failed.
        """
        if not isinstance(event, events.TrialClosed):
            return
        self._ended += 1
        if event.state != "failed":
            return
        self._failed += 1
        if self._failed / max(self._ended, self._least) > self._rate:
            raise TooManyFailuresError(self._failed, self._ended, self._rate, event)
