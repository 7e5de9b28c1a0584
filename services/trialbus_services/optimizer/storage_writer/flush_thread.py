"""Flusher and FlushThread: write batches of changes to the storage, by themselves or when asked."""

from __future__ import annotations

import logging
import threading
import time

from optuna.trial import TrialState

from trialbus_services.optimizer.storage_writer.change_batch import ChangeBatch, TrialChange
from trialbus_services.optimizer.storage_writer.change_queue import ChangeQueue
from trialbus_services.optimizer.storage_writer.curve_thinning import RecordedCurve
from trialbus_services.optimizer.storage_writer.storage_file import StorageFile
from trialbus_services.optimizer.storage_writer.writer import (
    StoredStudies,
    StoredStudy,
    StudyLostError,
    Writer,
)
from trialbus_services.process.error_text import describe_error

logger = logging.getLogger(__name__)

_MAX_PAUSE_S = 5.0
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


class Flusher:
    """Writes the changes of a queue; keeps and retries a batch that failed.

    Args:
        queue: Queue of the changes.
        writer: Writer of the storage.
        max_points: Largest number of intermediate values of a trial that are recorded; None for
            all.
        file: File of the storage.
    """

    def __init__(
        self, queue: ChangeQueue, writer: Writer, max_points: int | None, file: StorageFile
    ) -> None:
        self.stored_studies: StoredStudies = {}
        #: Why a study is no longer recorded, by the study's id in memory.
        self.lost_studies: dict[int, str] = {}
        #: The same by the study's name, also after the study was released.
        self.losses: dict[str, str] = {}
        #: Why the whole storage is lost; None while it is not.
        self.lost_storage: str | None = None
        self._file = file
        #: Ids in memory of trials that another program has.
        self.taken_trials: set[int] = set()
        self.last_error: str | None = None
        self.failing_since: float | None = None
        #: Number of rows that were taken from the queue and are not written yet.
        self.n_pending = 0
        self._queue = queue
        self._writer = writer
        self._max_points = max_points
        self._pending = ChangeBatch()

    def write_pending(self) -> bool:
        """Write all changes until now; return False if the storage cannot be written."""
        batch, n_changes = self._queue.take_batch()
        if self._max_points is not None:
            self._thin(batch, self._max_points)
        self._pending.merge(batch)
        self.n_pending = len(self._pending)
        try:
            self._write(self._pending)
            self._check_file()
        except Exception as error:  # noqa: BLE001 - after any failure the batch is retried
            if not self._check_file():
                self._note_failure(error)
                self.n_pending = len(self._pending)
                return False
            self._write(self._pending)  # of no study any more
        self._note_success()
        self._pending = ChangeBatch()
        self.n_pending = 0
        self._queue.mark_written(n_changes)
        return True

    def _write(self, batch: ChangeBatch) -> None:
        for study_id in self.lost_studies:
            batch.drop(study_id)
        while len(batch):
            try:
                self._writer.write(batch, self.stored_studies)
                break
            except StudyLostError as error:
                logger.error("%s; its changes are no longer recorded", error.reason)  # noqa: TRY400
                self._lose_study(error.study_id, error.reason)
                batch.drop(error.study_id)
        for stored_study in self.stored_studies.values():
            self.taken_trials |= stored_study.taken
        for study_id in batch.released:
            self.stored_studies.pop(study_id, None)
            self.lost_studies.pop(study_id, None)

    def _lose_study(self, study_id: int, reason: str) -> None:
        self.last_error = self.lost_studies[study_id] = reason
        self.losses[self.stored_studies[study_id].name] = reason

    def _check_file(self) -> bool:
        """Lose all studies, and return True, if the storage's file is not at its path any more."""
        reason = self._file.find_loss()
        if reason is None:
            return False
        if self.lost_storage is None:
            logger.error("%s", reason)
            self.lost_storage = reason
        for study_id in list(self.stored_studies):
            self._lose_study(study_id, reason)
        return True

    def _note_failure(self, error: Exception) -> None:
        self.last_error = describe_error(error)
        if self.failing_since is None:
            self.failing_since = time.time()
            logger.warning("the storage cannot be written, retrying: %s", self.last_error)

    def _note_success(self) -> None:
        if self.failing_since is not None:
            logger.warning(
                "the storage is written again after %.1f s", time.time() - self.failing_since
            )
            self.failing_since = None

    def _thin(self, batch: ChangeBatch, max_points: int) -> None:
        for change in batch.trials.values():
            stored_study = self.stored_studies.get(change.study_id)
            if stored_study is not None:
                _thin(stored_study, change, max_points)


class FlushThread:
    """Lets a flusher write at intervals, and when a write is requested.

    Args:
        flusher: The flusher.
        queue: Queue of the changes.
        interval_s: Seconds between two batches.
    """

    def __init__(self, flusher: Flusher, queue: ChangeQueue, interval_s: float) -> None:
        self._flusher = flusher
        self._queue = queue
        self._interval_s = interval_s
        self._is_stopping = False
        # A daemon: a database that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread without writing pending changes."""
        self._is_stopping = True
        self._queue.request_write()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = self._interval_s
        while True:
            self._queue.wait_for_request(pause_s)
            if self._is_stopping:
                return
            if self._flusher.write_pending():
                pause_s = self._interval_s
            else:
                pause_s = min(2 * pause_s, max(_MAX_PAUSE_S, self._interval_s))


def _thin(stored_study: StoredStudy, change: TrialChange, max_points: int) -> None:
    stored_study.curves.setdefault(change.trial_id, RecordedCurve()).thin(change, max_points)
    if change.row is not None and change.row.state not in _OPEN:
        del stored_study.curves[change.trial_id]
