"""The thread that writes batches of changes to the storage."""

from __future__ import annotations

import logging
import threading
import time

from optuna.trial import TrialState

from trialbus_services.optimizer.storage_writer.change_batch import ChangeBatch, TrialChange
from trialbus_services.optimizer.storage_writer.change_queue import ChangeQueue
from trialbus_services.optimizer.storage_writer.curve_thinning import RecordedCurve
from trialbus_services.optimizer.storage_writer.writer import (
    StoredStudies,
    StoredStudy,
    StudyLostError,
    Writer,
)

logger = logging.getLogger(__name__)

_MAX_PAUSE_S = 5.0
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


class FlushThread:
    """Writes the changes of a queue at intervals; keeps and retries a batch that failed.

    Args:
        queue: Where changes come from.
        writer: Where they go.
        interval_s: Time between two batches.
        max_points: As in `WriteBehind`.
    """

    def __init__(
        self, queue: ChangeQueue, writer: Writer, interval_s: float, max_points: int | None
    ) -> None:
        self.stored_studies: StoredStudies = {}
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
        kept = ChangeBatch()
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
                self._note_failure(error)
                self.n_kept = len(kept)
                pause_s = min(2 * pause_s, max(_MAX_PAUSE_S, self._interval_s))
                continue
            self._note_success()
            kept = ChangeBatch()
            self.n_kept = 0
            pause_s = self._interval_s
            self._queue.mark_written(count)

    def _write(self, batch: ChangeBatch) -> None:
        for study_id in self.lost:
            batch.drop(study_id)
        while len(batch):
            try:
                self._writer.write(batch, self.stored_studies)
                break
            except StudyLostError as error:
                logger.error("%s; nothing more of it is recorded", error.reason)  # noqa: TRY400
                self.last_error = self.lost[error.study_id] = error.reason
                batch.drop(error.study_id)
        for study_id in batch.released:
            self.stored_studies.pop(study_id, None)
            self.lost.pop(study_id, None)

    def _note_failure(self, error: Exception) -> None:
        self.last_error = f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"
        if self.failing_since is None:
            self.failing_since = time.time()
            logger.warning("cannot record, will try again: %s", self.last_error)

    def _note_success(self) -> None:
        if self.failing_since is not None:
            logger.warning("recording again after %.1f s", time.time() - self.failing_since)
            self.failing_since = None

    def _thin(self, batch: ChangeBatch, max_points: int) -> None:
        for change in batch.trials.values():
            stored_study = self.stored_studies.get(change.study_id)
            if stored_study is not None:
                _thin(stored_study, change, max_points)


def _thin(stored_study: StoredStudy, change: TrialChange, max_points: int) -> None:
    stored_study.curves.setdefault(change.trial_id, RecordedCurve()).thin(change, max_points)
    if change.head is not None and change.head.state not in _OPEN:
        del stored_study.curves[change.trial_id]
