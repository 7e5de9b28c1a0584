"""Retention: takes the events of finished studies out of the log, a slice at a time.

A study's events may go when it has been finished for long enough, or when somebody says so, and
when every durable name has come past them; one that lags behind holds them back, visibly. What
stays of a study is `trial_assigned`: it tells the optimizer that a request was answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from trialbus.hub.log import EventLog
from trialbus.hub.log_state import Span

logger = logging.getLogger(__name__)

_SLICE = 2000  # offsets looked at in one go
_PAUSE_S = 0.01  # between two slices, so that the hub's clients notice nothing
_SEARCH_S = 5.0
_RETRY_S = 5.0  # after a slice that could not be removed


@dataclass
class _Removal:
    study: str
    span: Span
    next: int


class Retention:
    """Decides which studies' events are removed, and removes the events in slices.

    Args:
        log: The log; this changes it through `EventLog.forget` alone.
        keep_finished_s: Seconds that the events of a finished study stay; None keeps the events
            until `forget` asks to remove the study.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
    """

    def __init__(
        self,
        log: EventLog,
        keep_finished_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._keep_s = keep_finished_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._queue: dict[str, _Removal] = {}
        self._due = 0.0  # monotonic
        self._search_due = 0.0
        self.removed = 0  #: events taken out since the hub started
        self.held_back: dict[str, list[str]] = {}  #: lagging durable names, by study

    @property
    def due(self) -> float:
        """When `work` is to be called next, in monotonic seconds; infinity for not at all."""
        if self._queue:
            return self._due
        return float("inf") if self._keep_s is None else self._search_due

    @property
    def removing(self) -> list[str]:
        """Studies with a removal of events under way."""
        return list(self._queue)

    def forget(self, study: str, *, force: bool = False) -> str | None:
        """Begin to remove a finished study's events and return why that may not be, or None.

        Args:
            study: Its name as it stands in topics.
            force: Also remove what durable names have not read yet.
        """
        span = self._log.studies.get(study)
        if span is None:
            return f"the log has no events of a study {study!r}"
        if span.finished is None:
            return f"study {study!r} has not finished; stop it first"
        lagging = self._find_lagging(span.finished)
        if lagging and not force:
            names = ", ".join(lagging)
            return f"not read yet by {names}; wait until they have read them, or forget them too"
        self._queue.setdefault(study, _Removal(study, span, span.first))
        return None

    def work(self) -> None:
        """Remove a slice of a study's events.

        Raises:
            sqlite3.Error: The log cannot be written; the slice is tried again next time.
        """
        now = self._clock()
        self._due = now + _RETRY_S  # unless this slice is removed
        if self._keep_s is not None and now >= self._search_due:
            self._search_due = now + _SEARCH_S
            self._queue_expired(self._keep_s)
        removal = next(iter(self._queue.values()), None)
        if removal is None:
            return
        if self._log.studies.get(removal.study) != removal.span:  # it was submitted again
            del self._queue[removal.study]
            self._due = now + _PAUSE_S
            return
        assert removal.span.finished is not None
        stop = min(removal.next + _SLICE, removal.span.finished + 1)
        last = stop > removal.span.finished
        self.removed += self._log.forget(removal.study, removal.next, stop, last=last)
        removal.next = stop
        if last:
            del self._queue[removal.study]
            logger.info("removed the events of study %r", removal.study)
        self._due = now + _PAUSE_S

    def _queue_expired(self, keep_s: float) -> None:
        before, self.held_back = self.held_back, {}
        for study, span in self._log.studies.items():
            if span.finished is None or span.finished_at > self._wall_clock() - keep_s:
                continue
            lagging = self._find_lagging(span.finished)
            if lagging:
                self.held_back[study] = lagging
                if before.get(study) != lagging:
                    logger.warning(
                        "the events of study %r are kept: %s has not read them yet",
                        study,
                        ", ".join(lagging),
                    )
            else:
                self.forget(study)

    def _find_lagging(self, finished: int) -> list[str]:
        return sorted(name for name, offset in self._log.durable.items() if offset <= finished)
