"""ChangeQueue: takes changes from the optimizer's thread to the flush thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from trialbus_services.optimizer.storage_writer.change_batch import (
    AttributeChanges,
    ChangeBatch,
    TrialChange,
)


class ChangeQueue:
    """A counting queue of changes between the optimizer's thread and the flush thread.

    Args:
        lock: Lock of the storage in memory. Callers of `open_trial_change`, `open_study_change` and
            `release` hold the lock until the change is complete; other methods acquire the lock.
        on_written: Called by the flush thread when a batch is written.
    """

    def __init__(self, lock: threading.RLock, on_written: Callable[[], object]) -> None:
        self._condition = threading.Condition(lock)
        self._on_written = on_written
        #: Changes that may be part of an atomic change.
        self._open = ChangeBatch()
        self._ready = ChangeBatch()
        self._n_ready = 0
        self._n_atomic = 0
        self._owner: int | None = None
        self._n_requested = 0
        self._is_write_requested = False
        #: Number of changes until now.
        self.n_changes = 0
        #: Number of changes that are written.
        self.n_written = 0

    def open_trial_change(self, study_id: int, trial_id: int, number: int) -> TrialChange:
        """Return the open change of a trial, to which the caller adds rows."""
        self.n_changes += 1
        change = self._open.trials.get(trial_id)
        if change is None:
            change = self._open.trials[trial_id] = TrialChange(study_id, trial_id, number)
        return change

    def open_study_change(self, study_id: int) -> AttributeChanges:
        """Return the open change of a study, to which the caller adds attributes."""
        self.n_changes += 1
        return self._open.studies.setdefault(study_id, AttributeChanges())

    def release(self, study_id: int) -> None:
        """Add the removal of a study from memory as the study's last change."""
        self.n_changes += 1
        self._open.released.add(study_id)

    @contextmanager
    def atomic(self) -> Generator[None]:
        """Keep the changes of a block together: a batch has all of the changes or none."""
        with self._condition:
            if self._n_atomic == 0:
                self._seal()
                self._owner = threading.get_ident()
            self._n_atomic += 1
        try:
            yield
        finally:
            with self._condition:
                self._n_atomic -= 1
                if self._n_atomic == 0:
                    self._owner = None
                    if self._n_requested > self.n_written:
                        self._request_write()

    def take_batch(self) -> tuple[ChangeBatch, int]:
        """Remove and return the next batch, and the number of changes up to the batch's end."""
        with self._condition:
            if self._n_atomic == 0:
                self._seal()
            batch, self._ready = self._ready, ChangeBatch()
            return batch, self._n_ready

    def mark_written(self, n_changes: int) -> None:
        """Mark the first `n_changes` changes as written."""
        with self._condition:
            self.n_written = n_changes
            self._condition.notify_all()
        self._on_written()

    def wait_written(self, n_changes: int, timeout_s: float | None) -> bool:
        """Request a write, and return whether the first `n_changes` changes are written in time.

        Raises:
            RuntimeError: The calling thread is inside `atomic` and would wait for itself.
        """
        with self._condition:
            if self._owner == threading.get_ident():
                raise RuntimeError("flush() inside atomic() would wait for itself for ever")
            self._n_requested = max(self._n_requested, n_changes)
            self._request_write()
            return self._condition.wait_for(lambda: self.n_written >= n_changes, timeout_s)

    def wait_for_request(self, timeout_s: float) -> None:
        """Wait until a write is requested, or until the time-out."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_write_requested, timeout_s)
            self._is_write_requested = False

    def request_write(self) -> None:
        """Request a write, which ends `wait_for_request`."""
        with self._condition:
            self._request_write()

    def __len__(self) -> int:
        """Count the rows in the queue."""
        with self._condition:
            return len(self._open) + len(self._ready)

    def _seal(self) -> None:
        self._ready.merge(self._open)
        self._open = ChangeBatch()
        self._n_ready = self.n_changes

    def _request_write(self) -> None:
        self._is_write_requested = True
        self._condition.notify_all()
