"""AttemptLimits: the limits of time and silence of an attempt, watched in the training itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from trialbus.messages import events

_LONGEST_PART = 0.1  # of the silence: how late its excess may be noticed


class AttemptLimits:
    """Watches the limits of an attempt that no worker runs; a worker watches its own trainings.

    A thread compares the number of published events from time to time, so that a report costs
    nothing.

    Args:
        assigned: The trial, with `timeout_s` and `silence_s` in seconds, each None for no limit.
        count_published: Returns how many events the training has published.
        expire: Called once, by the thread, with the cause and the reason when a limit is exceeded.
    """

    def __init__(
        self,
        assigned: events.TrialAssigned,
        count_published: Callable[[], int],
        expire: Callable[[events.FailureCause, str], None],
    ) -> None:
        self._timeout_s = assigned.timeout_s
        self._silence_s = assigned.silence_s
        self._count_published = count_published
        self._expire = expire
        self._closed = threading.Event()
        if self._timeout_s is not None or self._silence_s is not None:
            threading.Thread(target=self._watch, name="trialbus-limits", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        begun = published_at = time.monotonic()
        n_published = self._count_published()
        while not self._closed.wait(self._compute_period(time.monotonic() - begun)):
            now = time.monotonic()
            if n_published != (n_published := self._count_published()):
                published_at = now
            if self._timeout_s is not None and now - begun > self._timeout_s:
                limit = f"study.trial_timeout_s={self._timeout_s:g}"
                return self._expire("timed_out", f"the attempt took longer than {limit}")
            if self._silence_s is not None and now - published_at > self._silence_s:
                limit = f"study.silence_s={self._silence_s:g}"
                return self._expire("silent", f"no report came for {limit}")
        return None

    def _compute_period(self, elapsed_s: float) -> float:
        """Return the seconds until a limit may be exceeded, or the silence is to be measured."""
        periods = [threading.TIMEOUT_MAX]
        if self._timeout_s is not None:
            periods.append(max(0.0, self._timeout_s - elapsed_s))
        if self._silence_s is not None:
            periods.append(_LONGEST_PART * self._silence_s)
        return min(periods)
