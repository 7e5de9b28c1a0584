"""Check of a study against the study of the same name in the storage, before anything starts."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage

from trialbus.errors import SpecError
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import SPEC
from trialbus_services.optimizer.recorded_spec import read_spec
from trialbus_services.optimizer.recorded_study import (
    check_fit_of_changes,
    describe_changed_ranges,
    is_as_recorded,
)
from trialbus_services.reporter.storage_reader import open_storage

logger = logging.getLogger(__name__)

_STUDY = "SELECT study_id FROM studies WHERE study_name = ?"
_ATTRIBUTE = (
    "SELECT value_json FROM study_user_attributes JOIN studies USING (study_id) "
    "WHERE study_name = ? AND key = ?"
)


def check_recorded_study(url: str, spec: StudySpec) -> None:
    """Check that a study fits what a storage has recorded of the study, without changing anything.

    Ranges of params that differ are logged: the study goes on with them. A storage that is not
    there yet, or cannot be read from here, is checked by the optimizer.

    Args:
        url: URL of the storage.
        spec: Specification of the study.

    Raises:
        SpecError: The study does not fit the study of the same name in the storage.
    """
    if not _may_differ(url, spec):
        return
    try:
        storage = open_storage(url)
    except SpecError:
        return
    try:
        try:
            study = optuna.load_study(study_name=spec.name, storage=storage)
        except (KeyError, optuna.exceptions.OptunaError, sqlalchemy.exc.SQLAlchemyError):
            return
        check_fit_of_changes(spec, study)
        recorded = read_spec(study.user_attrs)
        changes = [] if recorded is None else describe_changed_ranges(spec, recorded)
        if changes:
            logger.warning("study %r goes on with other ranges: %s", spec.name, "; ".join(changes))
    finally:
        _close(storage)


def _may_differ(url: str, spec: StudySpec) -> bool:
    """Return false if a SQLite file has no study of the name, or has the study as it is.

    Optuna takes half a second to open a database, which most starts of a study can save.
    """
    path = Path(url.removeprefix("sqlite:///")).absolute()
    if not url.startswith("sqlite:///") or not path.is_file():
        return True
    try:
        # Not `mode=ro`, which would leave the files of a write-ahead log beside the database.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            study = database.execute(_STUDY, (spec.name,)).fetchone()
            attribute = database.execute(_ATTRIBUTE, (spec.name, SPEC)).fetchone()
    except sqlite3.Error:
        return True
    if study is None or attribute is None:
        return study is not None
    recorded = read_spec({SPEC: json.loads(attribute[0])})
    return recorded is None or not is_as_recorded(spec, recorded)


def _close(storage: BaseStorage) -> None:
    """Close the connections to a database, so that SQLite removes the files beside it."""
    backend = getattr(storage, "_backend", storage)
    if isinstance(backend, RDBStorage):
        backend.remove_session()
        backend.engine.dispose()
