"""Format of the log's SQLite file: tables, opening, and migration of older formats."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from trialbus.errors import LogError
from trialbus.hub.checked_table import Row
from trialbus.hub.integrity import chain_rows
from trialbus.hub.small_tables import GAP, META, TABLES, SmallTables
from trialbus.protocol.private_folder import open_private_file

logger = logging.getLogger(__name__)

Sync: TypeAlias = Literal["full", "normal"]
Connect: TypeAlias = Callable[..., sqlite3.Connection]
"""Opens a database, as `sqlite3.connect` does."""

FORMAT = "4"
_PAGE = 4096  # bytes
_EVENT = """
CREATE TABLE event (
    offset INTEGER PRIMARY KEY, publisher BLOB NOT NULL, seq INTEGER NOT NULL,
    topic TEXT NOT NULL, body BLOB NOT NULL,
    previous INTEGER NOT NULL DEFAULT 0, rare INTEGER NOT NULL DEFAULT -1,
    checksum INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX rare ON event (offset) WHERE substr(topic, 1, 20) <> 'evaluation_complete/';
"""


def open_database(
    path: Path, sync: Sync, *, former_id: str | None, connect: Connect = sqlite3.connect
) -> sqlite3.Connection:
    """Open the file of a log; create the file or migrate an older format, where necessary.

    Args:
        path: The file.
        sync: See `EventLog`.
        former_id: Id of the log that was in the folder, if there was one. A file that is gone, or
            of which only the first page is left, begins as that log again without its events.
        connect: Opens the file.

    Raises:
        sqlite3.Error: The file is no database, or is damaged.
        LogError: The file has a format of another version, or lost its tables.
    """
    size = path.stat().st_size if path.exists() else 0
    # SQLite gives the files beside it the same mode.
    os.close(open_private_file(path))
    db = _connect(path, connect, is_new=not size)
    try:
        db.execute(f"PRAGMA synchronous={sync}")
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            _migrate(db, path)
        elif former_id is None:
            create(db, uuid.uuid4().hex)
        elif size <= _PAGE:
            create(db, former_id)
        else:
            _refuse(f"{path} has lost its tables; run: trialbus log check --repair")
        # SQLite refuses to return a text that is not UTF-8, as damage may leave it.
        db.text_factory = bytes
    except BaseException:
        db.close()
        raise
    return db


def _connect(path: Path, connect: Connect, *, is_new: bool) -> sqlite3.Connection:
    """Connect to the file of a log with a write-ahead log, also on a disk without any space."""
    for has_index in (True, False):
        # A hub may run in another thread than the one that made it, but only ever in one.
        db = connect(path, isolation_level=None, check_same_thread=False)
        try:
            if is_new:
                db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            if not has_index:
                db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            db.close()
            code = getattr(error, "sqlite_errorcode", None)
            if code != sqlite3.SQLITE_IOERR_SHMSIZE or not has_index:
                raise
            logger.warning(
                "no space on the disk of %s: the hub serves what the log has, and no other process"
                " reads the file until the hub is started again",
                path,
            )
        except BaseException:
            db.close()
            raise
        else:
            return db
    raise AssertionError("a second attempt returns or raises")


def create(db: sqlite3.Connection, log_id: str) -> None:
    """Make the tables of an empty log."""
    tables = "".join(f"{table.create};\n" for table in TABLES)
    db.executescript(f"BEGIN; {_EVENT} {tables} COMMIT;")
    META.put(db, [("format", FORMAT), ("log_id", log_id), ("created", f"{time.time():.3f}")])
    SmallTables(db).seal()


def read_format(db: sqlite3.Connection) -> str:
    """Return the format of an open log; empty for a log without a format."""
    row = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    return "" if row is None else str(row[0])


def _refuse(reason: str) -> NoReturn:
    raise LogError(reason)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    format_ = read_format(db)
    if format_ == FORMAT:
        return
    if format_ not in {"2", "3"}:
        _refuse(f"{path} has format {format_!r}; this version reads {FORMAT!r}")
    db.execute("BEGIN IMMEDIATE")
    try:
        _migrate_small_tables(db, has_removed=format_ == "3")
        if format_ == "2":
            _migrate_events(db)
        META.put(db, [("format", FORMAT)])
        SmallTables(db).seal()
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _migrate_small_tables(db: sqlite3.Connection, *, has_removed: bool) -> None:
    present = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    for table in TABLES:
        rows: list[Row] = []
        if table is GAP and has_removed:
            rows = [(stop, first, "removed") for stop, first in db.execute("SELECT * FROM removed")]
            db.execute("DROP TABLE removed")
        elif table.name in present:
            rows = db.execute(f"SELECT * FROM {table.name}").fetchall()  # noqa: S608
            db.execute(f"DROP TABLE {table.name}")
        db.execute(table.create)
        table.put(db, rows)


def _migrate_events(db: sqlite3.Connection) -> None:
    """Add checksums to the rows of a log of format 2, whose gaps count as removed events."""
    for column, default in (("previous", 0), ("rare", -1), ("checksum", 0)):
        db.execute(f"ALTER TABLE event ADD COLUMN {column} INTEGER NOT NULL DEFAULT {default}")
    max_offset = db.execute("SELECT value FROM meta WHERE key = 'end'").fetchone()
    previous, rare, next_offset = 0, -1, 0
    gaps: list[tuple[int, int, str]] = []
    while True:
        rows = db.execute(
            "SELECT offset, publisher, seq, topic, body FROM event WHERE offset >= ?"
            " ORDER BY offset LIMIT 10000",
            (next_offset,),
        ).fetchall()
        if not rows:
            break
        chained, previous, rare = chain_rows(rows, previous, rare)
        for offset, *_ in rows:
            if offset > next_offset:
                gaps.append((offset, next_offset, "removed"))
            next_offset = offset + 1
        db.executemany(
            "UPDATE event SET previous = ?, rare = ?, checksum = ? WHERE offset = ?",
            [(*row[5:], row[0]) for row in chained],
        )
    if max_offset is not None and int(max_offset[0]) > next_offset:
        gaps.append((int(max_offset[0]), next_offset, "removed"))
    GAP.put(db, gaps)
