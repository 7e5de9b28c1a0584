"""ApiWriter: writes batches by the storage API of Optuna, which every storage has."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.attributes import VOID
from trialbus_services.optimizer.storage_writer.change_batch import (
    AttributeChanges,
    ChangeBatch,
    TrialChange,
)
from trialbus_services.optimizer.storage_writer.writer import (
    StoredStudies,
    StoredStudy,
    StudyLostError,
    is_refusal,
    log_refusal,
)

_T = TypeVar("_T")


class ApiWriter:
    """Writer for JournalStorage, GrpcStorageProxy and other storages, with a call for each row.

    Rows that are written are removed from the batch, so that no row is written twice. A trial is
    created with all rows that the batch has; readers see later rows one by one.

    Args:
        storage: The storage.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def read_trials(self, study_id: int) -> list[FrozenTrial]:
        """Return all trials of a study, sorted by number; `study_id` is the id in the storage."""
        trials = sorted(self._storage.get_all_trials(study_id), key=lambda trial: trial.number)
        for trial in trials:
            for step in trial.user_attrs.get(VOID, ()):
                if math.isnan(trial.intermediate_values.get(step, 0.0)):
                    del trial.intermediate_values[step]
        return trials

    def write(self, batch: ChangeBatch, stored_studies: StoredStudies) -> None:
        """Write a batch.

        Raises:
            StudyLostError: Another program has deleted a study.
            Exception: The storage cannot be written now.
        """
        changed = batch.studies.keys() | {change.study_id for change in batch.trials.values()}
        for study_id in changed:
            self._check_study(study_id, stored_studies[study_id])
        for study_id in list(batch.studies):
            self._write_study(stored_studies[study_id], batch.studies[study_id])
            del batch.studies[study_id]
        for trial_id in list(batch.trials):
            change = batch.trials[trial_id]
            self._write_trial(stored_studies[change.study_id], change)
            del batch.trials[trial_id]

    def _check_study(self, study_id: int, stored_study: StoredStudy) -> None:
        try:
            self._storage.get_study_name_from_id(stored_study.study_id)
        except KeyError:
            raise StudyLostError.of_deleted(study_id, stored_study.name) from None

    def _write_study(self, stored_study: StoredStudy, attributes: AttributeChanges) -> None:
        storage = self._storage
        setters = (
            (attributes.user, storage.set_study_user_attr),
            (attributes.system, storage.set_study_system_attr),
        )
        for values, setter in setters:
            for key in _drain(values):
                write = partial(setter, stored_study.study_id, key, json.loads(values[key]))
                _try_write(write, stored_study, None, f"attribute {key!r}")

    def _write_trial(self, stored_study: StoredStudy, change: TrialChange) -> None:
        if change.is_new and change.trial_id not in stored_study.trial_ids:
            if change.row is not None:
                _try_write(
                    partial(self._create, stored_study, change), stored_study, change, "the trial"
                )
            return
        trial_id = stored_study.trial_ids.get(change.trial_id)
        if trial_id is None or self._is_taken(stored_study, change):  # or refused before
            return
        try_write = partial(_try_write, stored_study=stored_study, change=change)
        storage = self._storage
        if change.is_started:
            try_write(
                partial(storage.set_trial_state_values, trial_id, TrialState.RUNNING),
                row="its start",
            )
            change.is_started = False
        for name in _drain(change.params):
            value, distribution = change.params[name]
            try_write(
                partial(storage.set_trial_param, trial_id, name, float(value), distribution),
                row=f"parameter {name!r}",
            )
        self._write_curve(trial_id, change, try_write)
        setters = (
            (change.attributes.user, storage.set_trial_user_attr),
            (change.attributes.system, storage.set_trial_system_attr),
        )
        for values, setter in setters:
            for key in _drain(values):
                try_write(
                    partial(setter, trial_id, key, json.loads(values[key])),
                    row=f"attribute {key!r}",
                )
        row = change.row
        if row is not None and row.state.is_finished():
            try_write(
                partial(
                    storage.set_trial_state_values, trial_id, row.state, list(row.values) or None
                ),
                row=f"its end as {row.state.name}",
            )
            stored_study.ended.add(change.trial_id)

    def _is_taken(self, stored_study: StoredStudy, change: TrialChange) -> bool:
        """Return whether another program has ended the trial of a change, or has begun it."""
        trial_id = change.trial_id
        if change.changes_open_trial and trial_id not in stored_study.ended | stored_study.dropped:
            state = self._storage.get_trial(stored_study.trial_ids[trial_id]).state
            conflict = change.find_conflict(state)
            if conflict is not None:
                stored_study.add_conflict(trial_id, conflict, is_dropped=True)
        return trial_id in stored_study.dropped

    def _write_curve(
        self, trial_id: int, change: TrialChange, try_write: Callable[..., None]
    ) -> None:
        if change.void:
            void = change.void - change.steps.keys()
            try_write(partial(self._void_steps, trial_id, void), row="steps without a value")
            change.void = set()
        for step in _drain(change.steps):
            try_write(
                partial(
                    self._storage.set_trial_intermediate_value,
                    trial_id,
                    step,
                    float(change.steps[step]),
                ),
                row=f"the value of step {step}",
            )

    def _void_steps(self, trial_id: int, steps: set[int]) -> None:
        """Replace values by NaN, since Optuna's API deletes none."""
        storage = self._storage
        recorded = storage.get_trial(trial_id)
        void = sorted(steps & recorded.intermediate_values.keys())
        for step in void:
            storage.set_trial_intermediate_value(trial_id, step, math.nan)
        known: list[int] = recorded.user_attrs.get(VOID, [])
        storage.set_trial_user_attr(trial_id, VOID, sorted({*known, *void}))

    def _create(self, stored_study: StoredStudy, change: TrialChange) -> None:
        assert change.row is not None
        params = {
            name: (d.to_external_repr(value), d) for name, (value, d) in change.params.items()
        }
        template = FrozenTrial(
            trial_id=-1,
            number=-1,
            state=change.row.state,
            value=None,
            values=change.row.values or None,
            datetime_start=change.row.start,
            datetime_complete=change.row.complete,
            params={name: value for name, (value, _) in params.items()},
            distributions={name: distribution for name, (_, distribution) in params.items()},
            user_attrs={k: json.loads(v) for k, v in change.attributes.user.items()},
            system_attrs={k: json.loads(v) for k, v in change.attributes.system.items()},
            intermediate_values=dict(change.steps),
        )
        trial_id = self._storage.create_new_trial(stored_study.study_id, template)
        number = self._storage.get_trial_number_from_id(trial_id)
        if number != change.number:
            stored_study.add_conflict(change.trial_id, f"added trial {change.number}")
        stored_study.add_trial(change.trial_id, trial_id, number)


def _drain(rows: dict[_T, Any]) -> Iterable[_T]:
    """Yield the key of each row, and delete the row once the loop goes on."""
    for key in list(rows):
        yield key
        del rows[key]


def _try_write(
    write: Callable[[], object], stored_study: StoredStudy, change: TrialChange | None, row: str
) -> None:
    try:
        write()
    except Exception as error:
        if not is_refusal(error):
            raise
        log_refusal(stored_study, change, row, error)
