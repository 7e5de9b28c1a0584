"""A queue of changes from the thread that makes changes to the thread that writes."""

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
    """Changes that are not written yet, counted.

    Args:
        lock: Held by whoever calls `trial`, `study` or `release`, for as long as the change is
            made; everything else takes it by itself.
        on_written: Called, by the thread that writes, when a batch is written.
    """

    def __init__(self, lock: threading.RLock, on_written: Callable[[], object]) -> None:
        self._condition = threading.Condition(lock)
        self._on_written = on_written
        #: What changes now, and may be half of something.
        self._open = ChangeBatch()
        self._ready = ChangeBatch()
        self._n_ready = 0
        self._n_atomic = 0
        self._owner: int | None = None
        self._asked = 0
        self._hurry = False
        #: Changes until now, and how many of them are written.
        self.count = 0
        self.written = 0

    def trial(self, study_id: int, trial_id: int, number: int) -> TrialChange:
        """Return the open change of a trial, to be filled."""
        self.count += 1
        change = self._open.trials.get(trial_id)
        if change is None:
            change = self._open.trials[trial_id] = TrialChange(study_id, trial_id, number)
        return change

    def study(self, study_id: int) -> AttributeChanges:
        """Return the open attribute changes of a study, to be filled."""
        self.count += 1
        return self._open.studies.setdefault(study_id, AttributeChanges())

    def release(self, study_id: int) -> None:
        """Note that a study has no further changes."""
        self.count += 1
        self._open.released.add(study_id)

    @contextmanager
    def atomic(self) -> Generator[None]:
        """Keep changes made inside from being taken before the block ends."""
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
                    if self._asked > self.written:
                        self._wake()

    def take(self) -> tuple[ChangeBatch, int]:
        """Return the batch that can be written, and the count of changes up to its end."""
        with self._condition:
            if self._n_atomic == 0:
                self._seal()
            batch, self._ready = self._ready, ChangeBatch()
            return batch, self._n_ready

    def mark_written(self, count: int) -> None:
        """Note that all changes up to a count are written."""
        with self._condition:
            self.written = count
            self._condition.notify_all()
        self._on_written()

    def wait_written(self, count: int, timeout_s: float | None) -> bool:
        """Request a write and wait for its end; return whether it ended in time.

        Raises:
            RuntimeError: This thread is inside `atomic`, so that it would wait for itself.
        """
        with self._condition:
            if self._owner == threading.get_ident():
                raise RuntimeError("flush() inside atomic() would wait for its end for ever")
            self._asked = max(self._asked, count)
            self._wake()
            return self._condition.wait_for(lambda: self.written >= count, timeout_s)

    def wait_asked(self, timeout_s: float) -> None:
        """Wait until a write is requested, or until the time-out."""
        with self._condition:
            self._condition.wait_for(lambda: self._hurry, timeout_s)
            self._hurry = False

    def wake(self) -> None:
        """End `wait_asked`."""
        with self._condition:
            self._wake()

    def __len__(self) -> int:
        """Count the rows that were not taken yet."""
        with self._condition:
            return len(self._open) + len(self._ready)

    def _seal(self) -> None:
        self._ready.merge(self._open)
        self._open = ChangeBatch()
        self._n_ready = self.count

    def _wake(self) -> None:
        self._hurry = True
        self._condition.notify_all()
