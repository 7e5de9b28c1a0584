"""SmallTables: tables of the log besides the events, and transactions of changes.

Publishers, durable names, sessions, studies and gaps change in the transaction that writes the
events. Every row carries its checksum, and one row of `meta` the number of transactions
and the exclusive-or of all checksums, so that a page that vanished, or came back from an older
state of the file, is noticed as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, TypeAlias

from trialbus.hub.checked_table import CheckedTable, Row

META = CheckedTable("meta", {"key": str, "value": str})
PUBLISHER = CheckedTable("publisher", {"id": bytes, "last": int})
DURABLE = CheckedTable("durable", {"name": str, "offset": int})
#: Of a durable name: the key that used it first, empty without keys, and its patterns, one a line.
READING = CheckedTable("reading", {"name": str, "key": str, "patterns": str})
SESSION = CheckedTable("session", {"id": str, "hello": bytes, "seen": float})
#: Name of the key that registered a session, if there are keys.
SESSION_KEY = CheckedTable("session_key", {"id": str, "key": str})
STUDY = CheckedTable("study", {"name": str, "first": int, "finished": int, "finished_at": float})
#: Offsets without an event, from `first` up to `stop`, and why: `removed` by retention, `lost` with
#: the tail of the log, `damaged` and left out by a repair, or `unused`.
GAP = CheckedTable("gap", {"stop": int, "first": int, "reason": str})
TABLES = (META, PUBLISHER, DURABLE, READING, SESSION, SESSION_KEY, STUDY, GAP)

_DIGEST = "digest"
_Key: TypeAlias = tuple[str, Any]


def read_commit_count(db: sqlite3.Connection) -> int:
    """Return the number of transactions since a log was made; 0 if the number is damaged.

    Raises:
        sqlite3.Error: The log cannot be read.
    """
    value = _read_meta(db, _DIGEST)
    return 0 if value is None else _parse_digest(value)[0]


def read_log_id(db: sqlite3.Connection) -> str | None:
    """Return the id of a log; None if the id is damaged.

    Raises:
        sqlite3.Error: The log cannot be read.
    """
    return _read_meta(db, "log_id")


def _read_meta(db: sqlite3.Connection, key: str) -> str | None:
    stored = db.execute(f"{META.select} WHERE key = ?", (key,)).fetchone()
    row = None if stored is None else META.verify(stored)
    return None if row is None else row[1]


def _parse_digest(value: str) -> tuple[int, str]:
    """Return the number of transactions and the digest of the rows."""
    n_commits, _, digest = value.partition(" ")
    return int(n_commits), digest


class SmallTables:
    """The small tables of an open log; `load` comes first.

    Args:
        db: The log.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._checksums: dict[_Key, int] = {}
        self._changed: dict[_Key, int] = {}  # in this transaction; 0 for a removed row
        self._digest = 0
        self.n_commits = 0  #: number of transactions since the log was made

    def load(self, *, salvage: bool = False) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
        """Return the verified and the damaged rows, by table.

        The name of every table is among the latter where rows are missing or from an older state.

        Args:
            salvage: Take a table that cannot be read for a damaged one, instead of raising.

        Raises:
            sqlite3.DatabaseError: A page cannot be read.
        """
        intact: dict[str, list[Row]] = {}
        damaged: dict[str, list[Row]] = {}
        for table in TABLES:
            intact[table.name], rows = [], list[Row]()
            try:
                table.read(self._db, intact[table.name], rows)
            except sqlite3.DatabaseError:
                if not salvage:
                    raise
                damaged[table.name] = rows
            if rows:
                damaged[table.name] = rows
        meta: dict[str, str] = {row[0]: row[1] for row in intact[META.name]}
        n_commits, digest = _parse_digest(meta.get(_DIGEST, "0 "))
        intact[META.name] = [row for row in intact[META.name] if row[0] != _DIGEST]
        self._checksums = {
            (table.name, row[0]): table.checksum(row)
            for table in TABLES
            for row in intact[table.name]
        }
        self._digest = 0
        for checksum in self._checksums.values():
            self._digest ^= checksum
        self.n_commits = n_commits
        if not damaged and digest != str(self._digest):
            damaged = {table.name: [] for table in TABLES}
        return intact, damaged

    def seal(self) -> None:
        """Write the digest of the present rows, in a log without a digest."""
        self.load()
        self._put_digest(self._digest)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Open a transaction; commit the changes of the block, or roll back after an error."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            digest = self._digest
            for key, checksum in self._changed.items():
                digest ^= self._checksums.get(key, 0) ^ checksum
            self._put_digest(digest)
            db.execute("COMMIT")
        except BaseException:
            self._changed.clear()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._digest = digest
        self.n_commits += 1
        self._checksums.update(self._changed)
        for key in [key for key, checksum in self._changed.items() if not checksum]:
            del self._checksums[key]
        self._changed.clear()

    def _put_digest(self, digest: int) -> None:
        META.put(self._db, [(_DIGEST, f"{self.n_commits + 1} {digest}")])

    def put(self, table: CheckedTable, rows: Iterable[Row]) -> None:
        """Insert rows, or replace rows of the same key."""
        for row, checksum in table.put(self._db, rows):
            self._changed[table.name, row[0]] = checksum

    def remove(self, table: CheckedTable, key: str | bytes | int) -> None:
        """Remove the row of a key, if such a row exists."""
        if (table.name, key) in self._checksums or (table.name, key) in self._changed:
            table.remove(self._db, key)
            self._changed[table.name, key] = 0

    def replace_all(self, rows: dict[str, list[Row]]) -> None:
        """Replace all rows of all tables."""
        with self.transaction():
            for table in TABLES:
                table.clear(self._db)
                for key in [key for key in self._checksums if key[0] == table.name]:
                    self._changed[key] = 0
                self.put(table, rows[table.name])

    def record_gaps(self, offsets: list[int], reason: str) -> None:
        """Record offsets, in order, that have no event from now on."""
        runs: list[list[int]] = []
        for offset in offsets:
            if runs and runs[-1][1] == offset:
                runs[-1][1] += 1
            else:
                runs.append([offset, offset + 1])
        for first, stop in runs:
            self.record_gap(first, stop, reason)

    def record_gap(self, first: int, stop: int, reason: str) -> None:
        """Record that offsets from `first` up to `stop` have no event; join the neighbours."""
        db = self._db
        before = db.execute(f"{GAP.select} WHERE stop = ?", (first,)).fetchone()
        after = db.execute(f"{GAP.select} WHERE stop > ? ORDER BY stop LIMIT 1", (stop,)).fetchone()
        for gap in (GAP.verify(stored) for stored in (before, after) if stored is not None):
            if gap is not None and gap[2] == reason and (gap[0] == first or gap[1] == stop):
                self.remove(GAP, gap[0])
                first, stop = min(first, gap[1]), max(stop, gap[0])
        self.put(GAP, [(stop, first, reason)])
