"""Check of a study against the study of the same name in the storage, before anything starts."""

from __future__ import annotations

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage

from trialbus.errors import SpecError
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.recorded_study import check_fit_of_changes
from trialbus_services.reporter.storage_reader import open_storage


def check_recorded_study(url: str, spec: StudySpec) -> None:
    """Check that a study fits what a storage has recorded of the study, without changing anything.

    A storage that is not there yet, or cannot be read from here, is checked by the optimizer.

    Args:
        url: URL of the storage.
        spec: Specification of the study.

    Raises:
        SpecError: The study does not fit the study of the same name in the storage.
    """
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
    finally:
        _close(storage)


def _close(storage: BaseStorage) -> None:
    """Close the connections to a database, so that SQLite removes the files beside it."""
    backend = getattr(storage, "_backend", storage)
    if isinstance(backend, RDBStorage):
        backend.remove_session()
        backend.engine.dispose()
