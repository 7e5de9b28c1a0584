"""TableWriter: writes batches to the tables of an RDBStorage, a batch in a transaction.

Optuna's API takes two SELECTs, an INSERT and a COMMIT for each intermediate value, which limits
SQLite to about 2,000 values/s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from trialbus_services.optimizer.storage_writer import table_schema
from trialbus_services.optimizer.storage_writer.change_batch import ChangeBatch, TrialChange
from trialbus_services.optimizer.storage_writer.row_format import (
    Rows,
    add_study_rows,
    add_trial_rows,
    format_trial_row,
)
from trialbus_services.optimizer.storage_writer.trial_loader import load_trials
from trialbus_services.optimizer.storage_writer.writer import (
    StoredStudies,
    StoredStudy,
    StudyLostError,
    is_refusal,
    log_refusal,
)

_STATEMENT_ROWS = 2_000


class TableWriter:
    """Writer for SQLite, PostgreSQL and MySQL.

    Args:
        storage: Storage with the known schema (`table_schema.find_mismatch`).

    Source:
        `optuna.storages._rdb.models`, version v3.2.0.a of the schema.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._engine = storage.engine
        self._tables = tables = table_schema.load_tables(self._engine)
        self._upserts = {
            name: table_schema.make_upsert(self._engine, tables[name])
            for name in table_schema.UPSERTED
        }
        trials, curves = tables["trials"], tables["trial_intermediate_values"]
        # Statements are built once: building takes longer than executing on SQLite.
        self._update_trials = (
            trials.update()
            .where(trials.c.trial_id == bindparam("id"))
            .values({n: bindparam(n) for n in ("state", "datetime_start", "datetime_complete")})
        )
        self._delete_steps = curves.delete().where(
            curves.c.trial_id == bindparam("id"), curves.c.step == bindparam("dropped_step")
        )
        attributes = tables["trial_system_attributes"]
        self._delete_attributes = attributes.delete().where(
            attributes.c.trial_id == bindparam("id"), attributes.c.key == bindparam("dropped_key")
        )
        studies = tables["studies"].c
        # Optuna, too, locks the study before it numbers a trial: no trial is added in between.
        self._select_and_lock_studies = (
            sqlalchemy.select(studies.study_id)
            .where(studies.study_id.in_(bindparam("ids", expanding=True)))
            .with_for_update()
        )
        # The first statement of a transaction: SQLite has no FOR UPDATE, and locks with a write.
        self._lock_database = (
            sqlalchemy.update(tables["studies"])
            .where(studies.study_id == -1)
            .values(study_name=studies.study_name)
        )
        self._select_and_lock_trials = (
            sqlalchemy.select(trials.c.trial_id, trials.c.state)
            .where(trials.c.trial_id.in_(bindparam("ids", expanding=True)))
            .with_for_update()
        )
        self._select_newer_trials = sqlalchemy.select(trials.c.number, trials.c.trial_id).where(
            trials.c.study_id == bindparam("study"),
            trials.c.number >= bindparam("first"),
            trials.c.trial_id > bindparam("newest"),  # saves a scan of all trials of the study
        )
        #: Trials with a new state whose COMMIT failed: the database may have that state or not.
        self._unconfirmed: set[int] = set()

    def read_trials(self, study_id: int) -> list[FrozenTrial]:
        """Return all trials of a study, sorted by number; `study_id` is the id in the storage."""
        with self._engine.connect() as connection:
            return load_trials(connection, self._tables, study_id)

    def write(self, batch: ChangeBatch, stored_studies: StoredStudies) -> None:
        """Write a batch in a transaction, or in several transactions if a row is refused.

        Raises:
            StudyLostError: Another program has deleted a study.
            sqlalchemy.exc.DBAPIError: The database cannot be written now.
        """
        try:
            self._transact(batch, stored_studies)
        except Exception as error:
            if not is_refusal(error):
                raise
            parts = batch.split()
            if not parts:
                _log_refused_row(batch, stored_studies, error)
            for part in parts:
                self.write(part, stored_studies)

    def _transact(self, batch: ChangeBatch, stored_studies: StoredStudies) -> None:
        with self._engine.connect() as connection:
            self._lock_studies(connection, batch, stored_studies)
            self._drop_conflicts(connection, batch, stored_studies)
            ids = self._insert_trials(connection, batch, stored_studies)
            self._write_rows(connection, batch, stored_studies, ids)
            changed = {trial_id for trial_id, change in batch.trials.items() if change.row}
            self._unconfirmed |= changed
            try:
                connection.commit()
            except BaseException:
                # SQLAlchemy considers the transaction ended, and would keep its locks in the pool.
                connection.invalidate()
                raise
        self._unconfirmed -= changed
        for trial_id, recorded_id in ids.items():
            change = batch.trials[trial_id]
            stored_studies[change.study_id].add_trial(trial_id, recorded_id, change.number)
        for trial_id, change in batch.trials.items():
            if change.row and change.row.state.is_finished():
                stored_studies[change.study_id].ended.add(trial_id)

    def _lock_studies(
        self, connection: Connection, batch: ChangeBatch, stored_studies: StoredStudies
    ) -> None:
        if self._engine.name == "sqlite":
            connection.execute(self._lock_database)
        changed = batch.studies.keys() | {change.study_id for change in batch.trials.values()}
        ids = [stored_studies[study_id].study_id for study_id in changed]
        existing_ids = set(connection.scalars(self._select_and_lock_studies, {"ids": ids}))
        for study_id in changed:
            stored_study = stored_studies[study_id]
            if stored_study.study_id not in existing_ids:
                raise StudyLostError.of_deleted(study_id, stored_study.name)

    def _drop_conflicts(
        self, connection: Connection, batch: ChangeBatch, stored_studies: StoredStudies
    ) -> None:
        """Drop the changes of trials that another program has ended, or has begun."""
        checked: dict[int, TrialChange] = {}
        for trial_id, change in list(batch.trials.items()):
            stored_study = stored_studies[change.study_id]
            recorded_id = stored_study.trial_ids.get(trial_id)
            if trial_id in stored_study.dropped:
                del batch.trials[trial_id]
            elif (
                recorded_id is not None
                and change.changes_open_trial
                and trial_id not in stored_study.ended
                and trial_id not in self._unconfirmed
            ):
                checked[recorded_id] = change
        ids = list(checked)
        for start in range(0, len(ids), _STATEMENT_ROWS):
            part = {"ids": ids[start : start + _STATEMENT_ROWS]}
            for recorded_id, state in connection.execute(self._select_and_lock_trials, part):
                change = checked[recorded_id]
                conflict = change.find_conflict(TrialState[str(getattr(state, "name", state))])
                if conflict is not None:
                    stored_study = stored_studies[change.study_id]
                    stored_study.add_conflict(change.trial_id, conflict, is_dropped=True)
                    del batch.trials[change.trial_id]

    def _insert_trials(
        self, connection: Connection, batch: ChangeBatch, stored_studies: StoredStudies
    ) -> dict[int, int]:
        """Insert new trials, and return the ids in the database by the ids in memory."""
        new: defaultdict[int, list[TrialChange]] = defaultdict(list)
        for change in batch.trials.values():
            if change.is_new and change.row and not _get_recorded_id(change, stored_studies):
                new[change.study_id].append(change)
        ids: dict[int, int] = {}
        for study_id, changes in new.items():
            stored_study = stored_studies[study_id]
            existing = self._read_ids_by_number(connection, stored_study, changes)
            self._renumber(stored_study, changes, existing)
            rows = [
                {
                    "number": change.number,
                    "study_id": stored_study.study_id,
                    **format_trial_row(change.row),
                }
                for change in changes
                if change.row
                and not (change.trial_id in self._unconfirmed and change.number in existing)
            ]
            _execute(connection, self._tables["trials"].insert(), rows)
            ids_by_number = self._read_ids_by_number(connection, stored_study, changes)
            for change in changes:
                ids[change.trial_id] = ids_by_number[change.number]
        return ids

    def _renumber(
        self, stored_study: StoredStudy, changes: list[TrialChange], existing: Collection[int]
    ) -> None:
        """Give new trials the next numbers, if another program has added trials meanwhile.

        Numbers that an earlier batch gave count as well: in memory they are still free.
        """
        new = [change for change in changes if change.trial_id not in self._unconfirmed]
        newest = stored_study.newest_number
        if not any(change.number in existing or change.number <= newest for change in new):
            return
        number = max([newest, *existing])
        for change in new:
            stored_study.add_conflict(change.trial_id, f"added trial {change.number}")
            number += 1
            change.number = number

    def _read_ids_by_number(
        self, connection: Connection, stored_study: StoredStudy, changes: list[TrialChange]
    ) -> dict[int, int]:
        values = {
            "study": stored_study.study_id,
            "first": min(change.number for change in changes),
            "newest": stored_study.newest_trial_id,
        }
        rows = connection.execute(self._select_newer_trials, values)
        return {row.number: row.trial_id for row in rows}

    def _write_rows(
        self,
        connection: Connection,
        batch: ChangeBatch,
        stored_studies: StoredStudies,
        new_ids: dict[int, int],
    ) -> None:
        rows: Rows = defaultdict(list)
        updated: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        dropped_keys: list[dict[str, Any]] = []
        for study_id, attributes in batch.studies.items():
            add_study_rows(rows, stored_studies[study_id].study_id, attributes)
        for change in batch.trials.values():
            trial_id = new_ids.get(change.trial_id) or _get_recorded_id(change, stored_studies)
            if trial_id is None:  # refused before
                continue
            if change.row and (
                change.trial_id not in new_ids or change.trial_id in self._unconfirmed
            ):
                updated.append({"id": trial_id, **format_trial_row(change.row)})
            dropped += [
                {"id": trial_id, "dropped_step": step} for step in change.dropped | change.void
            ]
            dropped_keys += [
                {"id": trial_id, "dropped_key": key} for key in change.attributes.dropped
            ]
            add_trial_rows(rows, trial_id, change)
        _execute(connection, self._update_trials, updated)
        _execute(connection, self._delete_steps, dropped)
        _execute(connection, self._delete_attributes, dropped_keys)
        for name, statement in self._upserts.items():
            _execute(connection, statement, rows[name])


def _get_recorded_id(change: TrialChange, stored_studies: StoredStudies) -> int | None:
    return stored_studies[change.study_id].trial_ids.get(change.trial_id)


def _execute(connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _STATEMENT_ROWS):
        connection.execute(statement, rows[start : start + _STATEMENT_ROWS])


def _log_refused_row(batch: ChangeBatch, stored_studies: StoredStudies, error: Exception) -> None:
    for change in batch.trials.values():
        rows = [
            *(f"parameter {name!r}" for name in change.params),
            *(f"the value of step {step}" for step in change.steps),
            *(f"attribute {key!r}" for key in change.attributes.user),
            *(f"attribute {key!r}" for key in change.attributes.system),
            *(f"the deletion of step {step}" for step in change.dropped | change.void),
            *(f"the deletion of attribute {key!r}" for key in change.attributes.dropped),
            "the trial",
        ]
        log_refusal(stored_studies[change.study_id], change, rows[0], error)
    for study_id, attributes in batch.studies.items():
        key = next(iter({**attributes.user, **attributes.system}))
        log_refusal(stored_studies[study_id], None, f"attribute {key!r}", error)
