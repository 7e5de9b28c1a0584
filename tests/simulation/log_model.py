"""LogModel: what the log has to be, checked against what is on the disk after every turn."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from simulation.world import World
from trialbus.messages.topics import list_matching_patterns
from trialbus.protocol.frames import Record, derive_publisher_id

HUB = b"hub"


class Row(NamedTuple):
    """An event as it is in the log."""

    offset: int
    publisher: bytes
    seq: int
    topic: str
    body: bytes


class LogModel:
    """The events that publishers accepted, and the rows that the log has of them.

    Args:
        world: The world.
        directory: Folder of the log.
        checks_accepted: Check that the log has what `accept` was told, and nothing else.
    """

    def __init__(self, world: World, directory: Path, *, checks_accepted: bool = True) -> None:
        self._checks_accepted = checks_accepted
        self._world = world
        self._path = directory / "events.db"
        self._db: sqlite3.Connection | None = None
        #: Topic and body of every event that was accepted, by publisher; the first has number 1.
        self.accepted: dict[bytes, list[tuple[str, bytes]]] = {}
        self.rows: list[Row] = []
        self.last: dict[bytes, int] = {}  #: number of each publisher's newest event in the log
        self.durable: dict[str, int] = {}

    @property
    def end(self) -> int:
        return self.rows[-1].offset + 1 if self.rows else 0

    def accept(self, secret: bytes, topic: str, body: bytes) -> None:
        """Take note of an event that a publisher accepted."""
        self.accepted.setdefault(derive_publisher_id(secret), []).append((topic, body))

    def close(self) -> None:
        if self._db is not None:
            self._db.close()

    def read(self) -> list[Row]:
        """Check what the last turn wrote, and return the new rows."""
        if self._db is None:
            if not self._path.exists():
                return []
            self._db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        rows = [
            Row(*row)
            for row in self._db.execute(
                "SELECT offset, publisher, seq, topic, body FROM event WHERE offset >= ?"
                " ORDER BY offset",
                (self.end,),
            )
        ]
        for row in rows:
            self._check_row(row)
            self.rows.append(row)
        self._check_durable()
        return rows

    def check_acknowledgement(self, secret: bytes, last: int) -> None:
        """Check that the log has what a publisher was told it has."""
        in_log = self.last.get(derive_publisher_id(secret), 0)
        self._world.check(
            last <= in_log, f"event {last} was acknowledged, and the log has {in_log} events of it"
        )

    def matching(self, first: int, stop: int, patterns: frozenset[str]) -> list[Row]:
        """Return the rows with offsets from `first` up to `stop` that match."""
        rows = self.rows[first:stop]
        return [r for r in rows if not patterns.isdisjoint(list_matching_patterns(r.topic))]

    def check_record(self, record: Record) -> None:
        """Check that a delivered record is in the log as delivered."""
        row = self.rows[record.offset] if record.offset < len(self.rows) else None
        self._world.check(
            row is not None
            and row
            == (record.offset, record.publisher, record.seq, record.topic, bytes(record.body)),
            f"record {record.offset} is not the one in the log",
        )

    def _check_row(self, row: Row) -> None:
        check, last = self._world.check, self.last.get(row.publisher, 0)
        check(
            row.offset == self.end, f"offset {row.offset} follows {self.end - 1}, no tail was lost"
        )
        check(
            row.seq == last + 1,
            f"event {row.seq} of a publisher follows its event {last} in the log",
        )
        self.last[row.publisher] = row.seq
        if row.publisher == HUB or not self._checks_accepted:
            return
        accepted = self.accepted.get(row.publisher, [])
        check(row.seq <= len(accepted), "the log has an event that nobody published")
        check(
            accepted[row.seq - 1] == (row.topic, row.body),
            f"event {row.seq} of a publisher is another one in the log",
        )

    def _check_durable(self) -> None:
        assert self._db is not None
        for name, offset in self._db.execute('SELECT name, "offset" FROM durable'):
            before = self.durable.get(name, 0)
            self._world.check(
                offset >= before, f"the offset of {name!r} went back from {before} to {offset}"
            )
            self.durable[name] = offset
