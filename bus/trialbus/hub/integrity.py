"""Integrity of the log: a checksum in every row, and a reader that delivers only verified rows.

SQLite's pages carry no checksum, so a changed bit in a row would be delivered like any other event.
Each row therefore carries a CRC-32 of all that it holds (`checksum`), the checksum of the row
before it (`previous`), so that a row of another history does not fit in, and the offset of the last
event before it that is no evaluation (`rare`), so that a reader by the index `rare` notices when
the index leaves an event out.
"""

from __future__ import annotations

import logging
import sqlite3
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec

from trialbus.hub.checked_table import Row
from trialbus.hub.small_tables import GAP
from trialbus.protocol.frames import Record

logger = logging.getLogger(__name__)

RARE = " AND substr(topic, 1, 20) <> 'evaluation_complete/'"
_EVALUATION = "evaluation_complete/"
# A topic as bytes: SQLite refuses to return a text that is not UTF-8.
_COLUMNS = (
    "SELECT offset, publisher, seq, CAST(topic AS BLOB), body, previous, rare, checksum FROM event"
)
_HEAD = struct.Struct("<IqqqHH")
_PROBED = 512  # offsets read one by one after an unreadable page
_PROBES = 8  # times so in one read
# These pass; every other error of a read is an unreadable page.
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM}

_Row = tuple[int, bytes, int, bytes, bytes, int, int, int]
#: A row of the table `event`, in the order of its columns.
EventRow: TypeAlias = tuple[int, bytes, int, str, bytes, int, int, int]


def checksum(  # noqa: PLR0917 - keywords cost time for every event
    previous: int, offset: int, seq: int, rare: int, publisher: bytes, topic: bytes, body: bytes
) -> int:
    """Return the checksum of a row of the log."""
    head = _HEAD.pack(previous, offset, seq, rare, len(publisher), len(topic))
    return zlib.crc32(b"".join((head, publisher, topic, body)))


def chain_rows(
    events: Iterable[tuple[int, bytes, int, str, bytes]], previous: int, rare: int
) -> tuple[list[EventRow], int, int]:
    """Return the rows of events, each chained to the one before, and what the next continues from.

    Args:
        events: Offset, publisher, sequence number, topic and body of each, in order.
        previous: Checksum of the row before the first.
        rare: Offset of the last event before the first that is no evaluation; -1 for none.
    """
    rows: list[EventRow] = []
    for offset, publisher, seq, topic, body in events:
        check = checksum(previous, offset, seq, rare, publisher, topic.encode(), body)
        rows.append((offset, publisher, seq, topic, body, previous, rare, check))
        previous = check
        if is_rare(topic):
            rare = offset
    return rows, previous, rare


def is_rare(topic: str) -> bool:
    """Return whether a topic is in the index `rare`: every topic but that of an evaluation."""
    return not topic.startswith(_EVALUATION)


class Damage:
    """Offsets of events that are known to be damaged or lost, each reported and counted once.

    Args:
        report: Called with the first offset, the one after the last, and the reason.
    """

    def __init__(self, report: Callable[[int, int, str], None]) -> None:
        self._report = report
        self._firsts: list[int] = []
        self._stops: list[int] = []
        self.count = 0

    def add(self, first: int, stop: int, reason: str) -> None:
        """Add the offsets from `first` up to `stop`."""
        i = bisect_right(self._firsts, first) - 1
        if i >= 0 and stop <= self._stops[i]:
            return
        low = i if i >= 0 and self._stops[i] >= first else i + 1
        high = bisect_right(self._firsts, stop)
        firsts, stops = self._firsts[low:high], self._stops[low:high]
        merged = min([first, *firsts]), max([stop, *stops])
        n_known = sum(stops) - sum(firsts)
        self._firsts[low:high], self._stops[low:high] = [merged[0]], [merged[1]]
        self.count += merged[1] - merged[0] - n_known
        self._report(first, stop, reason)


def format_offsets(first: int, stop: int) -> str:
    """Return the offsets from `first` up to `stop` in words."""
    return f"offset {first}" if stop == first + 1 else f"offsets {first} to {stop - 1}"


def _log_damage(first: int, stop: int, reason: str) -> None:
    offsets = format_offsets(first, stop)
    logger.error("the log is damaged at %s: %s; not delivered", offsets, reason)


class VerifiedReader:
    """Reader of the log's events in SQLite, which skips damaged rows.

    Args:
        db: The log.
        report: See `Damage`; the default logs.
    """

    def __init__(
        self, db: sqlite3.Connection, report: Callable[[int, int, str], None] = _log_damage
    ) -> None:
        self._db = db
        self.damage = Damage(report)
        self.position = 0  #: offset to go on from, after `read`
        self._rows_left = 0

    def read(
        self, first: int, end: int, max_rows: int, *, last_rare: int | None = None
    ) -> Iterator[Record]:
        """Yield the events of at most `max_rows` rows with offsets from `first` up to `end`.

        Args:
            first: Where to begin.
            end: Where the log ends.
            max_rows: Largest number of rows looked at.
            last_rare: Offset of the last event of the log that is no evaluation, to read only
                events that are none; None to read all.

        Raises:
            sqlite3.Error: The log cannot be read at present.
        """
        self.position, self._rows_left = first, max_rows
        return self._all(end) if last_rare is None else self._rare(end, last_rare)

    def _all(self, end: int) -> Iterator[Record]:
        probes = 0
        while self.position < end and self._rows_left > 0:
            try:
                yield from self._scan(end)
            except sqlite3.DatabaseError as error:
                _raise_passing(error)
            else:
                return
            if probes == _PROBES:
                return
            probes += 1
            yield from self._probe(end)

    def _scan(self, end: int) -> Iterator[Record]:
        """Yield verified events of a query, and advance `position` and `_rows_left`."""
        rows = self._db.execute(
            f"{_COLUMNS} WHERE offset >= ? AND offset < ? ORDER BY offset LIMIT ?",
            (self.position, end, self._rows_left),
        )
        before: _Row | None = None
        for row in rows:
            self._rows_left -= 1
            offset = row[0]
            if offset < self.position:  # out of order: an index page points to another's rows
                continue
            self._check_hole(self.position, offset)
            record = self._verify(row)
            follows = before is None or before[0] != offset - 1 or row[5] == before[7]
            if record is not None and not follows:
                self.damage.add(offset, offset + 1, "the event does not follow the one before")
                record = None
            before = row if record is not None else None
            self.position = offset + 1
            if record is not None:
                yield record
        if self._rows_left > 0:
            self._check_hole(self.position, end)
            self.position = end

    def _probe(self, end: int) -> Iterator[Record]:
        """Yield the verified events around an unreadable page, read row by row."""
        for offset in range(self.position, min(self.position + _PROBED, end)):
            row = None
            try:
                row = self._db.execute(f"{_COLUMNS} WHERE offset = ?", (offset,)).fetchone()
            except sqlite3.DatabaseError as error:
                _raise_passing(error)
                self._check_hole(offset, offset + 1, f"unreadable ({error})")
            else:
                if row is None:
                    self._check_hole(offset, offset + 1)
            self.position = offset + 1
            self._rows_left -= 1
            record = None if row is None else self._verify(row)
            if record is not None:
                yield record
            if self._rows_left <= 0:
                return

    def _rare(self, end: int, last_rare: int) -> Iterator[Record]:
        """Yield the events that are no evaluations by the index, else by all rows."""
        try:
            rows = self._db.execute(
                f"{_COLUMNS} WHERE offset >= ? AND offset < ?{RARE} ORDER BY offset LIMIT ?",
                (self.position, end, self._rows_left),
            )
            for row in rows:
                self._rows_left -= 1
                record = self._verify(row) if row[0] >= self.position else None
                if record is None or row[6] >= self.position:
                    break  # the index or a row is damaged, or events were removed
                self.position = record.offset + 1
                yield record
            else:
                if self._rows_left <= 0:
                    return
                if last_rare < self.position:
                    self.position = end
                    return
        except sqlite3.DatabaseError as error:
            _raise_passing(error)
        for record in self._all(end):
            if is_rare(record.topic):
                yield record

    def _verify(self, row: _Row) -> Record | None:
        offset, publisher, seq, topic, body, previous, rare, expected = row
        try:
            actual = checksum(previous, offset, seq, rare, publisher, topic, body)
            if actual == expected:
                return Record(offset, publisher, seq, topic.decode(), msgspec.Raw(body))
        except (TypeError, struct.error, UnicodeDecodeError):  # a column of another type
            pass
        self.damage.add(offset, offset + 1, "the checksum does not match")
        return None

    def _check_hole(self, first: int, stop: int, reason: str = "the events are gone") -> None:
        """Count offsets of unreadable events, except in known gaps."""
        while first < stop:
            gap = self._find_gap(first)
            if gap is None or gap[1] >= stop:
                self.damage.add(first, stop, reason)
                return
            if first < gap[1]:
                self.damage.add(first, gap[1], reason)
            first = gap[0]

    def _find_gap(self, offset: int) -> Row | None:
        """Return the first gap that ends after an offset."""
        try:
            stored = self._db.execute(
                f"{GAP.select} WHERE stop > ? ORDER BY stop LIMIT 1", (offset,)
            ).fetchone()
        except sqlite3.DatabaseError as error:
            _raise_passing(error)
            return None
        return None if stored is None else GAP.verify(stored)


def _raise_passing(error: sqlite3.DatabaseError) -> None:
    """Raise an error again that is not due to damage of the file."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & 0xFF in _PASSING:
        raise error
