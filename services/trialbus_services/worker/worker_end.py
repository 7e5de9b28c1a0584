"""WorkerEnd: ends a worker after its study, after a number of trials, or after a time without."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from trialbus.errors import SpecError
from trialbus_services.config.settings import WorkerSettings

logger = logging.getLogger(__name__)


class WorkerEnd:
    """Decides whether a slot may request another trial, and when a worker ends by itself.

    Args:
        settings: Settings of the worker: `until`, `max_trials` and `idle_s`.
        study: Study whose trials are run; empty for any study.
        clock: Monotonic seconds.

    Raises:
        SpecError: The worker is to end with its study, and serves any study.
    """

    def __init__(
        self, settings: WorkerSettings, study: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_with_study = settings.until == "finished"
        if self.is_with_study and not study:
            raise SpecError("worker.until", "'finished' needs the study of the worker (study.name)")
        self._settings = settings
        self._clock = clock
        self._n_left = settings.max_trials
        self._busy_at = clock()

    def admit_request(self) -> bool:
        """Count a request for a trial; return False if the worker has had its trials."""
        if self._n_left is None:
            return True
        if self._n_left == 0:
            return False
        self._n_left -= 1
        return True

    def withdraw_request(self) -> None:
        """Take back a request that has brought no trial."""
        if self._n_left is not None:
            self._n_left += 1

    def is_due(self, *, n_slots: int, is_busy: bool) -> bool:
        """Tell whether the worker ends now.

        Args:
            n_slots: Number of slots that run a trial or wait for a trial.
            is_busy: Whether a trial runs.
        """
        idle_s = self._settings.idle_s
        if is_busy:
            self._busy_at = self._clock()
        elif n_slots == 0:
            logger.info("the worker ends: its study has ended, or worker.max_trials are done")
            return True
        elif idle_s is not None and self._clock() - self._busy_at > idle_s:
            logger.info("the worker ends: no trial for %g s (worker.idle_s)", idle_s)
            return True
        return False
