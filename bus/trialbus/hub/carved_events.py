"""CarvedEvents: the verified events and entries found in the pages of a damaged log."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trialbus.hub.carving import CarvedRow, PageCarver
from trialbus.hub.checked_table import CheckedTable, Row
from trialbus.hub.integrity import checksum
from trialbus.hub.small_tables import DURABLE, GAP, META, PUBLISHER, TABLES

_COLUMNS = 8
_BATCH = 10_000
_POINTED, _OLDER, _SEARCHED = range(3)  # how a row was found, the most reliable first
_TABLE = """
CREATE TABLE carved (
    offset INTEGER, checksum INTEGER, found INTEGER, publisher BLOB, seq INTEGER, topic BLOB,
    body BLOB, previous INTEGER, PRIMARY KEY (offset, checksum)
)
"""
_SEARCHED_ROWS = f"SELECT * FROM carved WHERE found = {_SEARCHED} AND offset = ?"  # noqa: S608


class _Candidate(NamedTuple):
    offset: int
    checksum: int
    found: int
    publisher: bytes
    seq: int
    topic: bytes
    body: bytes
    previous: int


class CarvedEvents:
    """What is left of a log: its events in a temporary database, its entries in memory.

    Args:
        carver: Pages of the damaged log.
        path: File for the temporary database.
        end: Offset at which the log ended, as far as is known; 0 for unknown.
    """

    def __init__(self, carver: PageCarver, path: Path, end: int) -> None:
        #: Verified rows of the tables besides the events, by table and key.
        self.entries: dict[str, dict[Any, Row]] = {table.name: {} for table in TABLES}
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(_TABLE)
        self._collect(carver.read_rows(), _POINTED, None)
        newest = self._db.execute("SELECT max(offset) FROM carved").fetchone()[0]
        self.end = max(end, -1 if newest is None else newest + 1)
        if self._has_hole():
            self._collect(carver.read_older_rows(), _OLDER, self.end)
        if self._has_hole():
            self._collect(carver.search_events(), _SEARCHED, self.end)

    def close(self) -> None:
        """Close the temporary database."""
        self._db.close()

    def read(self) -> Iterator[tuple[int, bytes, int, str, bytes]]:
        """Yield offset, publisher, sequence number, topic and body of each event, in order."""
        for row in self._fill_holes():
            if not self._is_removed(row.offset):
                yield row.offset, row.publisher, row.seq, row.topic.decode(), row.body

    def _fill_holes(self) -> Iterator[_Candidate]:
        """Yield the rows that count, with those found by searching where they fit.

        Anybody can publish a body that contains a row. What was only searched counts if it is
        chained to a row that SQLite wrote into a page, whose checksum no publisher is told.
        """
        before: _Candidate | None = None
        for row in self._choose_rows():
            if before is not None:
                for following in self._continue(before, row.offset):
                    yield following
                    before = following
            first = before.offset + 1 if before is not None else 0
            yield from self._trace_back(row, first)
            yield row
            before = row
        if before is not None:
            yield from self._continue(before, self.end)

    def _continue(self, row: _Candidate, stop: int) -> Iterator[_Candidate]:
        """Yield the searched rows before an offset that continue a row."""
        query = f"{_SEARCHED_ROWS} AND previous = ?"
        while row.offset + 1 < stop:
            found = self._db.execute(query, (row.offset + 1, row.checksum)).fetchone()
            if found is None:
                return
            row = _Candidate(*found)
            yield row

    def _trace_back(self, row: _Candidate, first: int) -> list[_Candidate]:
        """Return the searched rows from an offset on that a row continues, in order."""
        traced: list[_Candidate] = []
        query = f"{_SEARCHED_ROWS} AND checksum = ?"
        while row.offset > first:
            found = self._db.execute(query, (row.offset - 1, row.previous)).fetchone()
            if found is None:
                break
            row = _Candidate(*found)
            traced.append(row)
        return traced[::-1]

    def _choose_rows(self) -> Iterator[_Candidate]:
        """Yield the row of each offset, of several the one that continues the row before."""
        before: _Candidate | None = None
        groups = self._read_groups()
        group = next(groups, None)
        while group is not None:
            following = next(groups, None)
            follows = following if following and following[0].offset == group[0].offset + 1 else []
            before = _choose(group, before, {candidate.previous for candidate in follows})
            if before is not None:
                yield before
            group = following

    def _collect(self, rows: Iterable[CarvedRow], found: int, end: int | None) -> None:
        """Add verified rows; of the tables besides the events, only rows of the newest pages."""
        batch: list[_Candidate] = []
        self._db.execute("BEGIN")
        for row_id, values in rows:
            if row_id is None:
                if found == _POINTED:
                    self._add_entry(values)
                continue
            candidate = _verify(row_id, values, found)
            if candidate is None or (end is not None and row_id >= end):
                continue
            batch.append(candidate)
            if len(batch) >= _BATCH:
                self._write(batch)
        self._write(batch)
        self._db.execute("COMMIT")

    def _write(self, batch: list[_Candidate]) -> None:
        marks = "?, ?, ?, ?, ?, ?, ?, ?"
        self._db.executemany(f"INSERT OR IGNORE INTO carved VALUES ({marks})", batch)  # noqa: S608
        batch.clear()

    def _add_entry(self, values: tuple[Any, ...]) -> None:
        for table in TABLES:
            row = table.verify_carved(values)
            if row is None:
                continue
            entries = self.entries[table.name]
            known = entries.get(row[0])
            entries[row[0]] = row if known is None else _merge(table, known, row)
            return

    def _has_hole(self) -> bool:
        n_known: int = self._db.execute("SELECT count(DISTINCT offset) FROM carved").fetchone()[0]
        n_removed: int = sum(stop - first for stop, first, *_ in self.entries[GAP.name].values())
        return n_known + n_removed < self.end

    def _is_removed(self, offset: int) -> bool:
        """Tell whether an offset has no event, although an old page may still have a row of it."""
        return any(first <= offset < stop for stop, first, *_ in self.entries[GAP.name].values())

    def _read_groups(self) -> Iterator[list[_Candidate]]:
        group: list[_Candidate] = []
        for row in self._db.execute(
            "SELECT * FROM carved WHERE found < ? ORDER BY offset, found", (_SEARCHED,)
        ):
            candidate = _Candidate(*row)
            if group and group[0].offset != candidate.offset:
                yield group
                group = []
            group.append(candidate)
        if group:
            yield group


def _choose(
    group: list[_Candidate], before: _Candidate | None, continued: set[int]
) -> _Candidate | None:
    """Return the row of an offset that counts, or None.

    Args:
        group: Rows with the offset, the most reliable first.
        before: The row before that counts.
        continued: Checksums that rows with the next offset continue.
    """
    if before is not None and before.offset == group[0].offset - 1:
        group = [candidate for candidate in group if candidate.previous == before.checksum]
    certain = [candidate for candidate in group if candidate.checksum in continued]
    return next(iter(certain or group), None)


def _merge(table: CheckedTable, known: Row, row: Row) -> Row:
    """Return the row of a key that is the safer of two."""
    if table is PUBLISHER:
        return max(known, row)
    if table is DURABLE:
        return min(known, row)  # twice is better than never
    return row if table is not META else known


def _verify(row_id: int, values: tuple[Any, ...], found: int) -> _Candidate | None:
    """Return the row of an event whose checksum matches, or None."""
    if len(values) != _COLUMNS or values[0] is not None:
        return None
    _, publisher, seq, topic, body, previous, rare, expected = values
    try:
        if checksum(previous, row_id, seq, rare, publisher, topic, body) != expected:
            return None
        topic.decode()
    except (TypeError, AttributeError, ValueError, struct.error):
        return None
    return _Candidate(row_id, expected, found, publisher, seq, topic, body, previous)
