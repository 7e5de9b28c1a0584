"""Write to the tables of an RDBStorage, a batch in a transaction.

Optuna's own API takes two SELECTs, an INSERT and a COMMIT for each intermediate value, which is
about 2,000 values/s on SQLite however it is called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from trialbus_services.optimizer.storage_writer import table_schema
from trialbus_services.optimizer.storage_writer.change_batch import ChangeBatch, TrialChange
from trialbus_services.optimizer.storage_writer.row_format import (
    Rows,
    add_study,
    add_trial,
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
    """The writer for SQLite, PostgreSQL and MySQL.

    Args:
        storage: Its schema is known (`table_schema.find_mismatch`).

    Source:
        `optuna.storages._rdb.models`, version v3.2.0.a of the schema.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._engine = storage.engine
        self._tables = tables = table_schema.reflect(self._engine)
        self._upserts = {
            name: table_schema.upsert(self._engine, tables[name]) for name in table_schema.UPSERTED
        }
        trials, curves = tables["trials"], tables["trial_intermediate_values"]
        self._update = (
            trials.update()
            .where(trials.c.trial_id == bindparam("id"))
            .values({n: bindparam(n) for n in ("state", "datetime_start", "datetime_complete")})
        )
        self._drop = curves.delete().where(
            curves.c.trial_id == bindparam("id"), curves.c.step == bindparam("at")
        )
        # Built once: building a statement takes longer than it takes SQLite to answer.
        studies = tables["studies"].c
        # Locked as Optuna does before it counts trials, so that nobody adds one in between.
        self._lock = (
            sqlalchemy.select(studies.study_id)
            .where(studies.study_id.in_(bindparam("ids", expanding=True)))
            .with_for_update()
        )
        self._newer = sqlalchemy.select(trials.c.number, trials.c.trial_id).where(
            trials.c.study_id == bindparam("study"),
            trials.c.number >= bindparam("first"),
            trials.c.trial_id > bindparam("newest"),  # else it would look at all of the study
        )
        #: New trials whose COMMIT failed, which says nothing about whether they are there.
        self._unsure: set[int] = set()

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """Read all trials of a study by its id in the storage, in the order of their numbers."""
        with self._engine.connect() as connection:
            return load_trials(connection, self._tables, study_id)

    def write(self, batch: ChangeBatch, stored_studies: StoredStudies) -> None:
        """Write a batch in one transaction, or in several if some of it is refused.

        Raises:
            StudyLostError: A study was deleted, or somebody else has added trials to it.
            sqlalchemy.exc.DBAPIError: The database cannot be written now.
        """
        try:
            self._transact(batch, stored_studies)
        except Exception as error:
            if not is_refusal(error):
                raise
            parts = batch.split()
            if not parts:
                _log(batch, stored_studies, error)
            for part in parts:
                self.write(part, stored_studies)

    def _transact(self, batch: ChangeBatch, stored_studies: StoredStudies) -> None:
        with self._engine.connect() as connection:
            self._lock_studies(connection, batch, stored_studies)
            ids = self._insert_trials(connection, batch, stored_studies)
            self._write_rows(connection, batch, stored_studies, ids)
            self._unsure |= ids.keys()
            try:
                connection.commit()
            except BaseException:
                # SQLAlchemy takes the transaction for ended, and would keep its locks in the pool.
                connection.invalidate()
                raise
        self._unsure -= ids.keys()
        for trial_id, recorded_id in ids.items():
            stored_studies[batch.trials[trial_id].study_id].add(trial_id, recorded_id)

    def _lock_studies(
        self, connection: Connection, batch: ChangeBatch, stored_studies: StoredStudies
    ) -> None:
        wanted = batch.studies.keys() | {change.study_id for change in batch.trials.values()}
        ids = [stored_studies[study_id].study_id for study_id in wanted]
        there = set(connection.scalars(self._lock, {"ids": ids}))
        for study_id in wanted:
            if stored_studies[study_id].study_id not in there:
                raise StudyLostError(
                    study_id, f"somebody has deleted the study {stored_studies[study_id].name!r}"
                )

    def _insert_trials(
        self, connection: Connection, batch: ChangeBatch, stored_studies: StoredStudies
    ) -> dict[int, int]:
        """Insert the trials that are new; return their ids in the database by those of memory."""
        new: defaultdict[int, list[TrialChange]] = defaultdict(list)
        for change in batch.trials.values():
            if change.created and change.head and not _recorded_id(change, stored_studies):
                new[change.study_id].append(change)
        ids: dict[int, int] = {}
        for study_id, changes in new.items():
            stored_study = stored_studies[study_id]
            there: set[int] = set()
            if not self._unsure.isdisjoint(change.trial_id for change in changes):
                there = set(self._numbers(connection, stored_study, changes))
            rows = [
                {
                    "number": change.number,
                    "study_id": stored_study.study_id,
                    **format_trial_row(change.head),
                }
                for change in changes
                if change.head and not (change.trial_id in self._unsure and change.number in there)
            ]
            _execute(connection, self._tables["trials"].insert(), rows)
            found = self._numbers(connection, stored_study, changes)
            for change in changes:
                if len(found[change.number]) > 1:
                    raise StudyLostError(
                        study_id,
                        f"somebody else has added trial {change.number} to the study "
                        f"{stored_study.name!r} while it was running here",
                    )
                [ids[change.trial_id]] = found[change.number]
        return ids

    def _numbers(
        self, connection: Connection, stored_study: StoredStudy, changes: list[TrialChange]
    ) -> dict[int, list[int]]:
        where = {
            "study": stored_study.study_id,
            "first": min(change.number for change in changes),
            "newest": stored_study.newest,
        }
        found: defaultdict[int, list[int]] = defaultdict(list)
        for number, trial_id in connection.execute(self._newer, where):
            found[number].append(trial_id)
        return found

    def _write_rows(
        self,
        connection: Connection,
        batch: ChangeBatch,
        stored_studies: StoredStudies,
        new: dict[int, int],
    ) -> None:
        rows: Rows = defaultdict(list)
        updated: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        for study_id, attributes in batch.studies.items():
            add_study(rows, stored_studies[study_id].study_id, attributes)
        for change in batch.trials.values():
            trial_id = new.get(change.trial_id) or _recorded_id(change, stored_studies)
            if trial_id is None:  # refused before
                continue
            if change.head and (change.trial_id not in new or change.trial_id in self._unsure):
                updated.append({"id": trial_id, **format_trial_row(change.head)})
            dropped += [{"id": trial_id, "at": step} for step in change.dropped]
            add_trial(rows, trial_id, change)
        _execute(connection, self._update, updated)
        _execute(connection, self._drop, dropped)
        for name, statement in self._upserts.items():
            _execute(connection, statement, rows[name])


def _recorded_id(change: TrialChange, stored_studies: StoredStudies) -> int | None:
    return stored_studies[change.study_id].trials.get(change.trial_id)


def _execute(connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _STATEMENT_ROWS):
        connection.execute(statement, rows[start : start + _STATEMENT_ROWS])


def _log(batch: ChangeBatch, stored_studies: StoredStudies, error: Exception) -> None:
    for change in batch.trials.values():
        what = [
            *(f"parameter {name!r}" for name in change.params),
            *(f"the value of step {step}" for step in change.steps),
            *(f"attribute {key!r}" for key in change.attributes.user),
            *(f"attribute {key!r}" for key in change.attributes.system),
            "the trial",
        ]
        log_refusal(stored_studies[change.study_id], change, what[0], error)
    for study_id, attributes in batch.studies.items():
        key = next(iter({**attributes.user, **attributes.system}))
        log_refusal(stored_studies[study_id], None, f"attribute {key!r}", error)
