"""Read studies from any storage of Optuna, and leave it as it is."""

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
from trialbus_services.optimizer.storage import JOURNAL, check_url, shown

_KEY = "storage.url"
_SQLITE_BEGINS = b"SQLite format 3\0"
_BUSY_S = 10


def open_to_read(storage: str) -> BaseStorage:
    """Open a storage that exists already; nothing is made or changed in it.

    Args:
        storage: A URL as in `storage.url`, or the path of a SQLite or journal file.

    Raises:
        SpecError: There is none, or it cannot be read; says why.
    """
    url = storage if "://" in storage else _url_of(Path(storage))
    if url == "memory://":
        raise SpecError(
            _KEY, "'memory://' is gone with the optimizer (expected a file or database)"
        )
    if url.startswith(JOURNAL):
        path = _existing(url.removeprefix(JOURNAL))
        return JournalStorage(JournalFileBackend(str(path)))
    check_url(url)
    parts = make_url(url)
    sqlite = parts.get_backend_name() == "sqlite"
    if sqlite and not (parts.database or "").startswith("file:"):
        _existing(parts.database or "")
    arguments = {"connect_args": {"timeout": _BUSY_S}} if sqlite else {"pool_pre_ping": True}
    try:
        return optuna.storages.get_storage(
            RDBStorage(url, engine_kwargs=arguments, skip_table_creation=True)
        )
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, RuntimeError, ValueError) as error:
        raise SpecError(_KEY, f"{shown(url)!r} cannot be read: {_reason(error)}") from error


def study_names(storage: BaseStorage, shown_as: str) -> list[str]:
    """Return the names of the studies of a storage, sorted.

    Raises:
        SpecError: It cannot be read.
    """
    try:
        return sorted(optuna.get_all_study_names(storage))
    except Exception as error:  # each kind of storage has errors of its own
        raise SpecError(_KEY, f"{shown(shown_as)!r} cannot be read: {_reason(error)}") from error


def load_study(name: str, storage: BaseStorage, shown_as: str) -> optuna.Study:
    """Return a study of a storage.

    Args:
        name: Its name.
        storage: Where it is.
        shown_as: The storage's URL, for errors.

    Raises:
        SpecError: There is none of that name; names the nearest one.
    """
    names = study_names(storage, shown_as)
    if name not in names:
        near = find_nearest(name, names)
        others = f"it has {', '.join(names[:10])}" if names else "it has none"
        hint = f"did you mean {near!r}?" if near else others
        raise SpecError("study", f"there is no study {name!r} in {shown(shown_as)!r}; {hint}")
    return optuna.load_study(study_name=name, storage=storage)


def _url_of(path: Path) -> str:
    with _existing(path).open("rb") as file:
        sqlite = file.read(len(_SQLITE_BEGINS)) == _SQLITE_BEGINS
    return f"sqlite:///{path}" if sqlite else f"{JOURNAL}{path}"


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise SpecError(_KEY, f"there is no file {str(path)!r}")
    return path


def _reason(error: BaseException) -> str:
    if isinstance(error, OptunaError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    text = str(getattr(error, "orig", None) or error)
    if "version_info" in text:
        return "it holds no studies of Optuna"
    return text.splitlines()[0] if text else type(error).__name__
