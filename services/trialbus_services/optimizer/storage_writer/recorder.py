"""The thread that writes."""

from __future__ import annotations

import logging
import threading
import time

from optuna.trial import TrialState

from trialbus_services.optimizer.storage_writer.batch import Batch, TrialChange
from trialbus_services.optimizer.storage_writer.queue import Queue
from trialbus_services.optimizer.storage_writer.thinning import RecordedCurve
from trialbus_services.optimizer.storage_writer.writer import Place, Places, StudyLostError, Writer

logger = logging.getLogger(__name__)

_MAX_PAUSE_S = 5.0
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


class Recorder:
    """Writes what the queue has, every moment; keeps and repeats what could not be written.

    Args:
        queue: Where changes come from.
        writer: Where they go.
        interval_s: Time between two batches.
        max_points: As in `WriteBehind`.
    """

    def __init__(
        self, queue: Queue, writer: Writer, interval_s: float, max_points: int | None
    ) -> None:
        self.places: Places = {}
        #: Why studies are no longer recorded, by memory's ids.
        self.lost: dict[int, str] = {}
        self.last_error: str | None = None
        self.failing_since: float | None = None
        #: Rows that were taken from the queue and are not written yet.
        self.n_kept = 0
        self._queue = queue
        self._writer = writer
        self._interval_s = interval_s
        self._max_points = max_points
        self._stopping = False
        # A daemon: a database that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread, without writing anything more."""
        self._stopping = True
        self._queue.wake()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        kept = Batch()
        pause_s = self._interval_s
        while True:
            self._queue.wait_asked(pause_s)
            if self._stopping:
                return
            fresh, count = self._queue.take()
            if self._max_points is not None:
                self._thin(fresh, self._max_points)
            kept.merge(fresh)
            self.n_kept = len(kept)
            try:
                self._write(kept)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                self._failed(error)
                self.n_kept = len(kept)
                pause_s = min(2 * pause_s, max(_MAX_PAUSE_S, self._interval_s))
                continue
            self._worked()
            kept = Batch()
            self.n_kept = 0
            pause_s = self._interval_s
            self._queue.wrote(count)

    def _write(self, batch: Batch) -> None:
        for study_id in self.lost:
            batch.drop(study_id)
        while len(batch):
            try:
                self._writer.write(batch, self.places)
                break
            except StudyLostError as error:
                logger.error("%s; nothing more of it is recorded", error.reason)  # noqa: TRY400
                self.last_error = self.lost[error.study_id] = error.reason
                batch.drop(error.study_id)
        for study_id in batch.released:
            self.places.pop(study_id, None)
            self.lost.pop(study_id, None)

    def _failed(self, error: Exception) -> None:
        self.last_error = f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"
        if self.failing_since is None:
            self.failing_since = time.time()
            logger.warning("cannot record, will try again: %s", self.last_error)

    def _worked(self) -> None:
        if self.failing_since is not None:
            logger.warning("recording again after %.1f s", time.time() - self.failing_since)
            self.failing_since = None

    def _thin(self, batch: Batch, max_points: int) -> None:
        for change in batch.trials.values():
            place = self.places.get(change.study_id)
            if place is not None:
                _thin(place, change, max_points)


def _thin(place: Place, change: TrialChange, max_points: int) -> None:
    place.curves.setdefault(change.trial_id, RecordedCurve()).thin(change, max_points)
    if change.head is not None and change.head.state not in _OPEN:
        del place.curves[change.trial_id]
