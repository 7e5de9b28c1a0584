"""Optuna storages, opened and checked by URL."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from trialbus.errors import SpecError
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.optimizer.remote_storage import (
    check_remote_url,
    is_remote,
    open_remote_storage,
)

if TYPE_CHECKING:  # imported where a database is opened: it takes long
    from sqlalchemy.engine import Engine

#: Beginning of the URL of a journal file.
JOURNAL = "journal:///"
#: URL of a SQLite file without options.
_SQLITE_FILE = re.compile(r"sqlite:///([^?]+)")
_MAX_LINE = 1 << 20  # bytes
_SQLITE_HEADER_BYTES = 100
_SQLITE_MAGIC = b"SQLite format 3\0"
_BUSY_S = 2  # a batch that finds the database locked for longer is written later
_TABLES_S = 0.5


def open_storage(url: str) -> BaseStorage:
    """Open the storage at a URL; create a storage that does not exist.

    Args:
        url: SQLAlchemy's URL of a database (`sqlite:///optuna_studies.db`), `journal:///<path>`
            for Optuna's journal file, `redis://<host>:<port>` for a journal in Redis,
            `grpc://<host>:<port>` for a server of Optuna's gRPC storage, or `memory://`.

    Raises:
        SpecError: The storage cannot be opened.

    Source:
        `optuna.storages.RDBStorage`, `optuna.storages.JournalStorage`,
        `optuna.storages.GrpcStorageProxy`.
    """
    if url == "memory://":
        return InMemoryStorage()
    check_url(url)
    if is_remote(url):
        return open_remote_storage(url)
    if url.startswith(JOURNAL):
        return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
    import sqlalchemy.exc
    from sqlalchemy.engine import make_url

    try:
        sqlite = make_url(url).get_backend_name() == "sqlite"
        storage = _open_database(
            url, {"connect_args": {"timeout": _BUSY_S}} if sqlite else {"pool_pre_ping": True}
        )
        if sqlite:
            _use_write_ahead_log(storage.engine)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise SpecError(
            "storage.url", f"{mask_secrets(url)!r} cannot be opened: {reason}{_advise(reason)}"
        ) from error
    return optuna.storages.get_storage(storage)


def _advise(reason: str) -> str:
    """Return what to do about an error of a database, where this is known."""
    if "locked" in reason:
        return "; end the program that holds the lock, or choose another storage"
    if "Connection refused" in reason:
        return "; start the database's server, or correct the address"
    return ""


def _open_database(url: str, engine_kwargs: dict[str, Any]) -> RDBStorage:
    import sqlalchemy.exc

    try:
        return RDBStorage(url, engine_kwargs=engine_kwargs)
    except sqlalchemy.exc.DatabaseError:
        # Another process may have created the same tables at this moment.
        time.sleep(_TABLES_S)
        return RDBStorage(url, engine_kwargs=engine_kwargs)


def find_study(url: str, name: str) -> optuna.Study | None:
    """Return a study in the storage at a URL, or None; the storage is not created.

    Raises:
        SpecError: The storage cannot be opened, or is the memory of another process.
    """
    if url == "memory://":
        raise SpecError("storage.url", f"{url!r} keeps no study that another process can read")
    return _load_study(url, name) if may_exist(url) else None


def may_exist(url: str) -> bool:
    """Tell whether there is a storage at a URL, as far as its file tells without opening it."""
    if url.startswith(JOURNAL):
        return Path(url.removeprefix(JOURNAL)).exists()
    sqlite = _SQLITE_FILE.fullmatch(url)
    return sqlite is None or Path(sqlite[1]).exists()


def _load_study(url: str, name: str) -> optuna.Study | None:
    try:
        return optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        return None


def check_url(url: str, *, is_written: bool = True) -> None:
    """Check the URL of a storage without opening the storage.

    Args:
        url: URL of the storage.
        is_written: Whether the storage is written, and so needs a folder that can be.

    Raises:
        SpecError: The URL is malformed, its database driver is not installed, or its file cannot
            be written.
    """
    if url == "memory://":
        return
    if is_remote(url):
        check_remote_url(url)
        return
    if url.startswith(JOURNAL):
        path = url.removeprefix(JOURNAL)
        _check_file(url, path, is_written=is_written)
        check_journal(path)
        return
    sqlite = _SQLITE_FILE.fullmatch(url)
    if sqlite is not None:
        _check_file(url, sqlite[1], is_written=is_written)
        _check_database(url, sqlite[1])
        return
    import sqlalchemy.exc
    from sqlalchemy.engine import make_url

    try:
        database_url = make_url(url)
        database_url.get_dialect().import_dbapi()
    except (sqlalchemy.exc.ArgumentError, ImportError, ValueError) as error:
        raise SpecError(
            "storage.url", f"{mask_secrets(url)!r} cannot be opened: {error}"
        ) from error
    is_sqlite = database_url.get_backend_name() == "sqlite"
    if is_sqlite and database_url.database and not database_url.query:
        _check_file(url, database_url.database, is_written=is_written)
        if database_url.get_driver_name() == "pysqlite":
            _check_database(url, database_url.database)


def make_folder(url: str) -> None:
    """Create the folder of a storage in a file that was removed with its folder."""
    sqlite = _SQLITE_FILE.fullmatch(url)
    if sqlite is not None:
        Path(sqlite[1]).parent.mkdir(parents=True, exist_ok=True)


def check_journal(path: str | Path) -> None:
    """Check that a path has no file, an empty file or a journal of Optuna.

    Raises:
        SpecError: The file is of another kind.
    """
    line = _read_first_line(Path(path))
    try:
        is_journal = not line or "op_code" in json.loads(line)
    except (ValueError, TypeError):
        is_journal = False
    if not is_journal:
        raise SpecError(
            "storage.url",
            f"{str(path)!r} is neither a SQLite database nor a journal of Optuna",
        )


def is_sqlite(file: Path) -> bool:
    """Tell whether a file is a SQLite database, or was one before it was damaged.

    SQLite itself is asked: a process that opens and closes the file in another way loses all locks
    of its connections to the database, and others then write where those still read.

    Source:
        https://www.sqlite.org/howtocorrupt.html, section 2.2.
    """
    if file.stat().st_size < _SQLITE_HEADER_BYTES:
        return False
    uri = f"file:{quote(str(file.absolute()))}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                with file.open("rb") as content:
                    return content.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    return True


def _check_database(url: str, path: str) -> None:
    file = Path(path)
    if not file.exists():
        return
    # A file without a size may have content all the same, as those of /proc.
    is_right = is_sqlite(file) if file.stat().st_size else not _read_first_line(file)
    if not is_right:
        raise SpecError("storage.url", f"{mask_secrets(url)!r} is not a SQLite database")


def _read_first_line(file: Path) -> bytes:
    """Return the first line of a file, empty for an empty or missing file."""
    try:
        with file.open("rb") as content:
            return content.readline(_MAX_LINE)
    except FileNotFoundError:
        return b""


def _check_file(url: str, path: str, *, is_written: bool) -> None:
    file = Path(path)
    masked = mask_secrets(url)
    if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
        raise SpecError("storage.url", f"{masked!r} is not a file that can be read and written")
    if not file.parent.is_dir():
        raise SpecError("storage.url", f"{masked!r}: there is no folder {str(file.parent)!r}")
    if is_written and not os.access(file.parent, os.W_OK | os.X_OK):
        raise SpecError(
            "storage.url",
            f"{masked!r}: the folder {str(file.parent)!r} cannot be written (expected a folder for "
            "the database and the files that it keeps beside)",
        )


def _use_write_ahead_log(engine: Engine) -> None:
    import sqlalchemy.event

    # Readers such as the dashboard and this writer then do not lock each other out.
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    @sqlalchemy.event.listens_for(engine, "connect")
    def relax_synchronous(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        # The hub's log has every event until the storage has: losing power costs a replay.
        connection.execute("PRAGMA synchronous=NORMAL")
