"""Read studies from any Optuna storage without changing the storage."""

from __future__ import annotations

from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy.engine import make_url

from trialbus.errors import SpecError
from trialbus.study.validation import find_nearest
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.optimizer.remote_storage import is_remote, open_remote_storage
from trialbus_services.optimizer.storage import (
    JOURNAL,
    check_journal,
    check_url,
    is_sqlite,
)

_KEY = "storage.url"
_BUSY_S = 10


def open_storage(storage: str) -> BaseStorage:
    """Open an existing storage for reading, without creating or changing any table.

    Args:
        storage: A URL as in `storage.url`, or the path of a SQLite or journal file.

    Raises:
        SpecError: The storage does not exist or cannot be read.
    """
    url = storage if "://" in storage else _build_url(Path(storage))
    if url == "memory://":
        raise SpecError(_KEY, "'memory://' ends with the optimizer (expected a file or database)")
    if url.startswith(JOURNAL):
        path = _require_file(url.removeprefix(JOURNAL))
        check_journal(path)
        return JournalStorage(JournalFileBackend(str(path)))
    check_url(url, is_written=False)
    if is_remote(url):
        return open_remote_storage(url)
    parts = make_url(url)
    sqlite = parts.get_backend_name() == "sqlite"
    if sqlite and not (parts.database or "").startswith("file:"):
        _require_file(parts.database or "")
    arguments = {"connect_args": {"timeout": _BUSY_S}} if sqlite else {"pool_pre_ping": True}
    try:
        return optuna.storages.get_storage(
            RDBStorage(url, engine_kwargs=arguments, skip_table_creation=True)
        )
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, RuntimeError, ValueError) as error:
        raise SpecError(
            _KEY, f"{mask_secrets(url)!r} cannot be read: {_find_reason(error)}"
        ) from error


def list_study_names(storage: BaseStorage, storage_url: str) -> list[str]:
    """Return the names of the studies of a storage, sorted.

    Raises:
        SpecError: The storage cannot be read.
    """
    try:
        return sorted(optuna.get_all_study_names(storage))
    except Exception as error:  # each kind of storage has errors of its own
        raise SpecError(
            _KEY, f"{mask_secrets(storage_url)!r} cannot be read: {_find_reason(error)}"
        ) from error


def load_study(name: str, storage: BaseStorage, storage_url: str) -> optuna.Study:
    """Return a study of a storage.

    Args:
        name: Name of the study.
        storage: Storage of the study.
        storage_url: The storage's URL, for errors.

    Raises:
        SpecError: The storage has no study of that name; suggests the nearest name.
    """
    names = list_study_names(storage, storage_url)
    if name not in names:
        near = find_nearest(name, names)
        others = f"it has {', '.join(names[:10])}" if names else "it has none"
        hint = f"did you mean {near!r}?" if near else others
        raise SpecError(
            "study", f"there is no study {name!r} in {mask_secrets(storage_url)!r}; {hint}"
        )
    return optuna.load_study(study_name=name, storage=storage)


def _build_url(path: Path) -> str:
    return f"sqlite:///{path}" if is_sqlite(_require_file(path)) else f"{JOURNAL}{path}"


def _require_file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise SpecError(_KEY, f"there is no file {str(path)!r}")
    return path


def _find_reason(error: BaseException) -> str:
    if isinstance(error, OptunaError) and error.__cause__ is not None:
        return _find_reason(error.__cause__)
    text = str(getattr(error, "orig", None) or error)
    if "version_info" in text:
        return "it holds no studies of Optuna"
    return text.splitlines()[0] if text else type(error).__name__
