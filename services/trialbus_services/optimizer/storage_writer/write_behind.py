"""WriteBehind: an Optuna storage that answers from memory and writes to another storage later."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.attributes import THINNED
from trialbus_services.optimizer.genetic_parents import renumber_parents
from trialbus_services.optimizer.storage_writer import table_schema
from trialbus_services.optimizer.storage_writer.api_writer import ApiWriter
from trialbus_services.optimizer.storage_writer.change_batch import (
    AttributeChanges,
    TrialChange,
    TrialRow,
)
from trialbus_services.optimizer.storage_writer.change_queue import ChangeQueue
from trialbus_services.optimizer.storage_writer.curve_thinning import RecordedCurve
from trialbus_services.optimizer.storage_writer.flush_thread import Flusher, FlushThread
from trialbus_services.optimizer.storage_writer.memory_storage import MemoryStorage
from trialbus_services.optimizer.storage_writer.storage_file import StorageFile
from trialbus_services.optimizer.storage_writer.table_writer import TableWriter
from trialbus_services.optimizer.storage_writer.writer import StorageLostError, StoredStudy, Writer

logger = logging.getLogger(__name__)

_WRITE_S = 10.0


class WriteBehind(MemoryStorage):
    """Keeps studies in memory, and records changes in another storage shortly after.

    A study in memory has no other writer: changes by another program in the other storage are not
    read. Where they meet a change of this program, `has_conflicts` tells, and the study has to be
    released and loaded again: a trial whose number was taken is recorded under the next number, and
    a trial that the other program ended keeps that end.

    Args:
        backend: The other storage. The tables of an `RDBStorage` with the known schema are written
            directly in batches; other storages are written by their methods.
        interval_s: Seconds between two batches; None for no thread: `write_pending` writes then.
        max_points: Largest number of intermediate values of a trial that are recorded; None for
            all. A longer curve is recorded at every second, fourth, ... step and at its last step;
            the trial's user attribute `trialbus:thinned` has the distance. Memory has all steps.
        on_written: Called by the flush thread when a batch is written.
    """

    def __init__(
        self,
        backend: BaseStorage,
        *,
        interval_s: float | None = 0.25,
        max_points: int | None = None,
        on_written: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self._backend = backend
        self._max_points = max_points
        self._queue = ChangeQueue(self._lock, on_written)
        self._writer = _make_writer(backend)
        self._flusher = Flusher(self._queue, self._writer, max_points, StorageFile(backend))
        self._flush_thread = (
            None if interval_s is None else FlushThread(self._flusher, self._queue, interval_s)
        )

    @property
    def backend(self) -> BaseStorage:
        """The other storage."""
        return self._backend

    @property
    def n_pending(self) -> int:
        """Number of rows that are not written yet."""
        return len(self._queue) + self._flusher.n_pending

    @property
    def last_error(self) -> str | None:
        """Error of the newest batch that could not be written; None before the first error."""
        return self._flusher.last_error

    @property
    def failing_since(self) -> float | None:
        """Time in seconds since the epoch when writing began to fail; None while writing works."""
        return self._flusher.failing_since

    @property
    def lost_storage(self) -> str | None:
        """Why nothing is recorded any more; None while the storage is there."""
        return self._flusher.lost_storage

    def find_loss(self, study_name: str) -> str | None:
        """Return why a study is no longer recorded; None while the study is recorded."""
        return self._flusher.losses.get(study_name)

    def has_loaded(self, study_name: str) -> bool:
        """Return whether a study is in memory."""
        with self._lock:
            return study_name in self._study_name_to_id

    def load_or_create_study(self, study_name: str, directions: Sequence[StudyDirection]) -> int:
        """Load a study with all trials into memory, or create the study; return the id in memory.

        Args:
            study_name: Name of the study.
            directions: Directions of a new study; an existing study keeps its directions.

        Raises:
            StorageInternalError: The storage cannot be read.
            StorageLostError: The file of the storage was removed, or the study is damaged.
        """
        if self.lost_storage is not None:
            raise StorageLostError(self.lost_storage)
        self._flusher.losses.pop(study_name, None)
        try:
            return self.get_study_id_from_name(study_name)
        except KeyError:
            return self.create_new_study(directions, study_name)

    def has_study(self, study_name: str) -> bool:
        """Return whether the storage has a study.

        Raises:
            StorageInternalError: The storage cannot be read.
        """
        try:
            self.get_study_id_from_name(study_name)
        except KeyError:
            return False
        return True

    def count_trials(self, study_name: str) -> int:
        """Return the number of trials of a study; 0 if the storage does not have the study.

        Raises:
            StorageInternalError: The storage cannot be read.
        """
        if not self.has_study(study_name):
            return 0
        return self.get_n_trials(self.get_study_id_from_name(study_name))

    def release(self, study_id: int) -> None:
        """Remove a study from memory; pending changes are still written."""
        with self._lock:
            super().delete_study(study_id)
            self._queue.release(study_id)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all earlier changes are in the storage; return False after the time-out.

        Raises:
            RuntimeError: Called inside `atomic`.
        """
        if self._flush_thread is None:
            return self.write_pending()
        return self._queue.wait_written(self._queue.n_changes, timeout_s)

    def write_pending(self) -> bool:
        """Write all earlier changes in this thread, where no other thread writes.

        Returns:
            Whether the storage has the changes.
        """
        return self._flusher.write_pending()

    def request_write(self) -> None:
        """Request a write now, and return without waiting."""
        self._queue.request_write()

    def mark(self) -> int:
        """Return a mark after all changes until now, for `is_recorded`."""
        return self._queue.n_changes

    def is_recorded(self, mark: int) -> bool:
        """Return whether all changes before a mark are in the storage."""
        return self._queue.n_written >= mark

    def is_taken(self, trial_id: int) -> bool:
        """Return whether another program has the trial, or the number, of a recorded trial.

        Known once the change that created, started or ended the trial is written.
        """
        return trial_id in self._flusher.taken_trials

    def has_conflicts(self, study_id: int) -> bool:
        """Return whether another program changed trials of a study since the study was loaded."""
        stored_study = self._flusher.stored_studies.get(study_id)
        return stored_study is not None and bool(stored_study.conflicts)

    def atomic(self) -> AbstractContextManager[None]:
        """Return a context manager: changes of the block are written in a single transaction.

        Storages without transactions create a new trial in a single step, and get other changes
        row by row.
        """
        return self._queue.atomic()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write pending changes, within a time limit, and end the thread."""
        if not self.flush(timeout_s):
            logger.error("%d rows are not recorded: %s", self.n_pending, self.last_error)
        if self._flush_thread is not None:
            self._flush_thread.stop(timeout_s=1.0)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Create a study in memory and in the storage, at once."""
        with self._lock:
            if study_name in self._study_name_to_id:
                raise DuplicatedStudyError
        recorded_id = self._backend.create_new_study(directions, study_name)
        name = self._backend.get_study_name_from_id(recorded_id)
        with self._lock:
            study_id = super().create_new_study(directions, name)
            self._flusher.stored_studies[study_id] = StoredStudy(name, recorded_id)
        return study_id

    def delete_study(self, study_id: int) -> None:
        """Delete a study in memory and in the storage, at once."""
        stored_study = self._flusher.stored_studies[study_id]
        self._wait_written()
        self._backend.delete_study(stored_study.study_id)
        self.release(study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a study in memory; load a study that only the storage has."""
        with self._lock:
            if study_name in self._study_name_to_id:
                return self._study_name_to_id[study_name]
        # The study may have been in memory before, with changes that are still pending.
        self._wait_written()
        return self._load_study(study_name, self._backend.get_study_id_from_name(study_name))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a study."""
        text = json.dumps(value)
        with self._lock:
            super().set_study_user_attr(study_id, key, value)
            self._queue.open_study_change(study_id).user[key] = text

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a study."""
        with self._lock:
            super().set_study_system_attr(study_id, key, value)
            recorded = renumber_parents(
                {key: value}, self._flusher.stored_studies[study_id].trial_ids.get
            )
            self._queue.open_study_change(study_id).system[key] = json.dumps(recorded[key])

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial.

        Raises:
            StorageInternalError: The study is no longer recorded.
        """
        attributes = AttributeChanges()
        if template_trial is not None:
            attributes.user = {k: json.dumps(v) for k, v in template_trial.user_attrs.items()}
            attributes.system = {k: json.dumps(v) for k, v in template_trial.system_attrs.items()}
        with self._lock:
            if study_id in self._flusher.lost_studies:
                raise StorageInternalError(self._flusher.lost_studies[study_id])
            trial_id = super().create_new_trial(study_id, template_trial)
            trial = self._get_trial(trial_id)
            change = self._open_change(trial_id)
            change.is_new = True
            change.row = TrialRow.from_trial(trial)
            # Copies: callers may change the trial that `get_trial` returns.
            change.params = {
                name: (distribution.to_internal_repr(trial.params[name]), distribution)
                for name, distribution in trial.distributions.items()
            }
            change.steps = dict(trial.intermediate_values)
            change.attributes = attributes
            return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a param of a trial."""
        with self._lock:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            self._open_change(trial_id).params[param_name] = (param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set the state and the objective values of a trial."""
        with self._lock:
            if not super().set_trial_state_values(trial_id, state, values):
                return False
            change = self._open_change(trial_id)
            change.is_started |= state == TrialState.RUNNING
            change.row = TrialRow.from_trial(self._get_trial(trial_id))
            return True

    def set_trial_times(
        self, trial_id: int, *, start: datetime | None = None, complete: datetime | None = None
    ) -> None:
        """Set when a trial started, or ended, to another time than that of the call."""
        with self._lock:
            trial = copy.copy(self._get_trial(trial_id))
            trial.datetime_start = start or trial.datetime_start
            trial.datetime_complete = complete or trial.datetime_complete
            self._set_trial(trial_id, trial)
            self._open_change(trial_id).row = TrialRow.from_trial(trial)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Set an intermediate value, in a time that does not depend on the length of the curve."""
        with self._lock:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            self._open_change(trial_id).steps[step] = intermediate_value

    def drop_trial_intermediate_values(self, trial_id: int, first_step: int) -> None:
        """Drop the intermediate values of a trial from a step on.

        Storages other than an `RDBStorage` cannot delete values: there each becomes NaN, and the
        user attribute `trialbus:void` lists the steps.
        """
        with self._lock:
            void = self._drop_values(trial_id, first_step)
            if void:
                change = self._open_change(trial_id)
                change.void |= void
                for step in void:
                    change.steps.pop(step, None)

    def drop_trial_system_attr(self, trial_id: int, key: str) -> None:
        """Delete a system attribute of a trial; only an `RDBStorage` deletes the recorded one."""
        with self._lock:
            system_attrs = self._get_trial(trial_id).system_attrs
            if system_attrs.pop(key, None) is not None:
                changes = self._open_change(trial_id).attributes
                changes.system.pop(key, None)
                changes.dropped.add(key)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a trial that has not ended."""
        with self._lock:
            self.check_trial_is_updatable(trial_id, self._get_trial(trial_id).state)
            self.amend_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a trial that has not ended."""
        with self._lock:
            self.check_trial_is_updatable(trial_id, self._get_trial(trial_id).state)
            self.amend_trial_system_attr(trial_id, key, value)

    def amend_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute, also of a trial that has ended.

        Storages other than an `RDBStorage` refuse attributes of such a trial; the refusal is
        logged, and the attribute stays in memory.
        """
        text = json.dumps(value)
        with self._lock:
            super().amend_trial_user_attr(trial_id, key, value)
            self._open_change(trial_id).attributes.user[key] = text

    def amend_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute, also of a trial that has ended; see `amend_trial_user_attr`."""
        text = json.dumps(value)
        with self._lock:
            super().amend_trial_system_attr(trial_id, key, value)
            self._open_change(trial_id).attributes.system[key] = text

    def _wait_written(self) -> None:
        if self.failing_since is not None or not self.flush(_WRITE_S):
            raise StorageInternalError(f"the storage cannot be written: {self.last_error}")

    def _open_change(self, trial_id: int) -> TrialChange:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._queue.open_trial_change(study_id, trial_id, number)

    def _load_study(self, name: str, recorded_id: int) -> int:
        backend = self._backend
        directions = backend.get_study_directions(recorded_id)
        user_attrs = backend.get_study_user_attrs(recorded_id)
        system_attrs = backend.get_study_system_attrs(recorded_id)
        trials = self._writer.read_trials(recorded_id)
        if [trial.number for trial in trials] != list(range(len(trials))):
            raise StorageLostError(
                f"the storage is damaged: trials of the study {name!r} are not numbered from 0"
            )
        recorded_ids = [trial._trial_id for trial in trials]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        with self._lock:
            study_id, trial_ids = self.add_study(name, directions, trials)
            self._studies[study_id].user_attrs = dict(user_attrs)
            new_ids = dict(zip(recorded_ids, trial_ids, strict=True))
            self._studies[study_id].system_attrs = renumber_parents(system_attrs, new_ids.get)
            stored_study = StoredStudy(name, recorded_id)
            for number, ids in enumerate(zip(trial_ids, recorded_ids, strict=True)):
                stored_study.add_trial(*ids, number)
            for trial_id, trial in zip(trial_ids, trials, strict=True):
                if self._max_points is not None and not trial.state.is_finished():
                    stride = trial.user_attrs.get(THINNED, 1)
                    stored_study.curves[trial_id] = RecordedCurve.from_storage(
                        trial.intermediate_values, stride
                    )
            self._flusher.stored_studies[study_id] = stored_study
        return study_id


def _make_writer(backend: BaseStorage) -> Writer:
    # `optuna.storages.get_storage` wraps an RDBStorage in a cache, which a writer does not need.
    storage = getattr(backend, "_backend", backend)
    if not isinstance(storage, RDBStorage):
        return ApiWriter(backend)
    reason = table_schema.find_mismatch(storage)
    if reason is None:
        return TableWriter(storage)
    logger.warning("the storage is written row by row, which is slow: %s", reason)
    return ApiWriter(storage)
