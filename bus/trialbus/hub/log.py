"""EventLog: the durable, ordered log of the bus in a SQLite file.

Events, what each publisher has sent, what each durable name has committed and which sessions are
alive change in one transaction, so that a crash at any moment leaves all four in step. SQLite's
write-ahead log recovers a torn last write; an unreadable file is refused and left as it is.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from trialbus.errors import LogError
from trialbus.hub.integrity import RARE, EventRow, VerifiedReader, chain_rows, is_rare
from trialbus.hub.log_files import LogFiles, write_again
from trialbus.hub.log_format import Connect, Sync, open_database
from trialbus.hub.log_repair import recover_tail
from trialbus.hub.log_state import (
    NameUse,
    Span,
    make_reading_rows,
    make_session_rows,
    make_study_rows,
    read_state,
    write_state,
)
from trialbus.hub.small_tables import (
    DURABLE,
    META,
    PUBLISHER,
    READING,
    SESSION,
    SESSION_KEY,
    STUDY,
    SmallTables,
)
from trialbus.hub.watermark import Mark, Watermark
from trialbus.messages import codec
from trialbus.messages.events import TrainerLost
from trialbus.messages.topics import list_matching_patterns
from trialbus.protocol.frames import Hello, Record
from trialbus.protocol.private_folder import make_private_folder

logger = logging.getLogger(__name__)

_TAIL = 32_768  # records kept in memory: subscribers that keep up are served without SQL
_TAIL_BYTES = 32 << 20
_MAX_SKIP = 1 << 26  # offsets that a client may have seen beyond the end
_MAX_SKIPS = 10  # times that the hub believes a client; each time one has seen more than the others
# Evaluations are nearly all of a log. Whoever wants none of them finds the others by the index.
_MANY = ("*/", "evaluation_complete/")
_SUBMITTED, _FINISHED, _ASSIGNED = "study_submitted/", "study_finished/", "trial_assigned/"
_TRAINER_LOST = b"trainer_lost/"
_lost_decoder = msgspec.msgpack.Decoder(TrainerLost)
_NO_SPACE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_LOST_SCAN = 20_000  # events that are no evaluations, searched for lost sessions
_FREED_PAGES = 256  # handed back to the file system in one call


@dataclass
class Change:
    """Changes of a turn of the hub to the log, applied together or not at all."""

    #: Publisher, sequence number, topic, body.
    events: list[tuple[bytes, int, str, msgspec.Raw]] = field(
        default_factory=list[tuple[bytes, int, str, msgspec.Raw]]
    )
    publishers: dict[bytes, int] = field(default_factory=dict[bytes, int])
    #: Offsets of durable names, and None for those that are forgotten.
    committed: dict[str, int | None] = field(default_factory=dict[str, int | None])
    #: What is read under durable names that are new.
    readings: dict[str, NameUse] = field(default_factory=dict[str, NameUse])
    #: Names of the keys that registered new sessions, if there are keys.
    session_keys: dict[str, str] = field(default_factory=dict[str, str])
    #: Sessions that began, or went on under a new `Hello`, and None for those that ended.
    sessions: dict[str, Hello | None] = field(default_factory=dict[str, Hello | None])

    def __bool__(self) -> bool:
        return bool(
            self.events or self.publishers or self.committed or self.readings or self.sessions
        )


class EventLog:
    """The log in a directory, held open by a single hub at a time.

    Args:
        directory: Made if it is missing. It must be on a local disk: SQLite's write-ahead log
            needs shared memory.
        sync: `full` survives a power failure; `normal` only the death of the hub's process.
        connect: Opens the file.
        wall_clock: Seconds since the epoch.

    Raises:
        LogError: Another hub has the log open, or the file is not a log that can be read.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        sync: Sync = "full",
        connect: Connect = sqlite3.connect,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._wall_clock = wall_clock
        self.path = Path(directory) / "events.db"
        self._n_skips = 0
        self.end: int = 0  #: offset that the next event gets
        self._last_checksum: int = 0  # of the newest row
        self._last_rare: int = -1  # offset of the newest event in the index `rare`
        with ExitStack() as opened:
            try:
                make_private_folder(self.path.parent)
                self._files = opened.enter_context(LogFiles(self.path))
                self._watermark = opened.enter_context(
                    closing(Watermark(self.path.with_suffix(".end")))
                )
            except OSError as error:
                file = f" ({error.filename})" if error.filename else ""
                raise LogError(
                    f"bus.dir={str(directory)!r} cannot hold the log: {error.strerror}{file}; "
                    "choose a folder that this user may write"
                ) from None
            try:
                n_damaged = recover_tail(self.path, self._watermark.read())
                mark = self._watermark.read()
                former_id = mark.log_id.hex() if mark else None
                db = open_database(self.path, sync, former_id=former_id, connect=connect)
                self._db = opened.enter_context(closing(db))
                self._load(n_damaged)
                self._files.watch()
            except (sqlite3.Error, OSError) as error:
                is_full = getattr(error, "sqlite_errorcode", None) in _NO_SPACE
                advice = (
                    "make space on the disk and start again"
                    if is_full
                    else "see what is left of it: trialbus log check. Or move the folder away to"
                    " begin a new log"
                )
                raise LogError(
                    f"{self.path} cannot be read as an event log ({error}); {advice}"
                ) from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file, and release the log for another hub."""
        self._opened.close()

    @property
    def damaged(self) -> int:
        """Number of events and entries found damaged or gone since the log was opened."""
        return self._reader.damage.count + self._n_damaged_entries

    def check_files(self) -> None:
        """Write the log again, and raise an error, if a file of the log was deleted or replaced.

        What is written to a deleted file would be gone with this process.

        Raises:
            LogError: A file was deleted or replaced; says where the events are.
        """
        file = self._files.find_changed()
        if file is None:
            return
        rescue = "no event is lost"  # SQLite closes the database with all of them
        if file == self.path:
            try:
                rescue = f"all its events are in {write_again(self._db, self.path)}"
            except (OSError, sqlite3.Error) as error:
                rescue = f"it cannot be written again: {error}"
        raise LogError(
            f"{file} was deleted or replaced while the hub had it open; {rescue}."
            " Start the hub again"
        )

    def append(self, change: Change) -> list[Record]:
        """Write a change in a transaction and return the records of the events.

        Raises:
            sqlite3.OperationalError: It could not be written, for example because the disk is
                full; nothing of it was.
        """
        rows, previous, rare = chain_rows(
            [
                (offset, publisher, seq, topic, bytes(raw))
                for offset, (publisher, seq, topic, raw) in enumerate(change.events, self.end)
            ],
            self._last_checksum,
            self._last_rare,
        )
        size = sum(len(row[4]) for row in rows)
        spans = self._spans(rows)
        tables = self._tables
        with tables.transaction():
            self._db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            tables.put(PUBLISHER, change.publishers.items())
            self._write_durable(change)
            self._write_sessions(change)
            tables.put(STUDY, make_study_rows(spans))
        self.end += len(rows)
        self._write_mark()
        self._last_checksum, self._last_rare = previous, rare
        self.publishers.update(change.publishers)
        for name, committed in change.committed.items():
            if committed is None:
                self.durable.pop(name, None)
                self.readings.pop(name, None)
            else:
                self.durable[name] = committed
        self.readings.update(change.readings)
        self.studies.update(spans)
        records = [Record(o, p, s, t, msgspec.Raw(b)) for o, p, s, t, b, *_ in rows]
        self._extend_tail(records, size)
        return records

    def read(
        self,
        offset: int,
        patterns: frozenset[str],
        *,
        max_events: int,
        max_bytes: int,
        max_scan: int = 20_000,
    ) -> tuple[list[Record], int]:
        """Return events from `offset` on that match, and the offset to go on from.

        At most `max_scan` events are looked at, so that a call costs a bounded time; the list may
        be empty although there is more to read. Removed and damaged events are passed over; the
        latter are counted in `damaged`.

        Raises:
            sqlite3.Error: The log cannot be read at present.
        """
        candidates: Iterable[Record]
        reader = None
        if offset >= self._tail_start:
            first = offset - self._tail_start
            candidates = self._tail[first : first + max_scan]
        else:
            reader = self._reader
            has_many = any(pattern.startswith(_MANY) for pattern in patterns)
            last_rare = None if has_many else self._last_rare
            # Row by row: a reader far behind takes few of the many that may be looked at.
            candidates = reader.read(offset, self.end, max_scan, last_rare=last_rare)
        found: list[Record] = []
        size = scanned = 0
        following = offset
        everything = "*/*/*" in patterns
        for record in candidates:
            if everything or not patterns.isdisjoint(list_matching_patterns(record.topic)):
                if len(found) >= max_events or size >= max_bytes:
                    return found, record.offset
                found.append(record)
                size += len(record.body)
            scanned += 1
            following = record.offset + 1
        if reader is not None:
            return found, reader.position
        # Fewer than asked for: there is no more.
        return found, self.end if scanned < max_scan else following

    def read_lost_sessions(self) -> list[str]:
        """Return the sessions that the newest events of the log declare lost, oldest first.

        Raises:
            sqlite3.Error: The log cannot be read at present.
        """
        rows = self._db.execute(
            f"SELECT CAST(topic AS BLOB), body FROM event WHERE offset >= 0{RARE}"  # noqa: S608
            " ORDER BY offset DESC LIMIT ?",
            (_LOST_SCAN,),
        )
        sessions: list[str] = []
        for topic, body in rows:
            if bytes(topic).startswith(_TRAINER_LOST):
                try:
                    sessions.append(codec.decode_with(_lost_decoder, body).session)
                except msgspec.DecodeError:  # a client may have published anything
                    continue
        return sessions[::-1]

    def covers(self, offset: int, *, is_trusted: bool = True) -> bool:
        """Return whether a client may stand at an offset; skip a lost tail that the client read.

        A client only learns of offsets from the hub. One that stands beyond the end has read
        events that this log lost, as an older copy does.

        Args:
            offset: Where the client stands.
            is_trusted: Whether the client is believed when the offset is beyond the end.

        Raises:
            sqlite3.Error: The log cannot be written.
        """
        if offset <= self.end:
            return offset >= 0
        if not is_trusted or offset - self.end > _MAX_SKIP or self._n_skips >= _MAX_SKIPS:
            return False
        self._n_skips += 1
        logger.error(
            "the log lost its tail: a client has read up to offset %d, the log ends at %d."
            " Was an older copy restored? The offsets between are skipped",
            offset,
            self.end,
        )
        self.skip_to(offset, "lost")
        return True

    def skip_to(self, offset: int, reason: Literal["lost", "unused"]) -> None:
        """Leave out the offsets before `offset`, which the next event gets.

        Raises:
            sqlite3.Error: The log cannot be written; nothing changed.
        """
        with self._tables.transaction():
            self._tables.record_gap(self.end, offset, reason)
        if reason == "lost":
            self.lost += offset - self.end
        self.end = offset
        self._write_mark()
        self._drop_tail(len(self._tail))

    def forget(self, study: str, first: int, stop: int, *, last: bool) -> int:
        """Remove a study's events with offsets from `first` up to `stop`; return how many.

        Those that answer a request stay, see `trialbus.hub.retention`. With `last` the study itself
        is forgotten, too.

        Raises:
            sqlite3.Error: The log cannot be written; nothing was removed.
        """
        db, tables = self._db, self._tables
        where = "WHERE offset >= ? AND offset < ? AND instr(topic, ?) AND NOT instr(topic, ?)"
        bounds = (first, stop, f"/{study}/", _ASSIGNED)
        with tables.transaction():
            rows = db.execute(f"SELECT offset FROM event {where} ORDER BY offset", bounds)  # noqa: S608
            tables.record_gaps([offset for (offset,) in rows], "removed")
            removed = db.execute(f"DELETE FROM event {where}", bounds).rowcount  # noqa: S608
            # The newest event may be among them, and its number must never be given again.
            tables.put(META, [("end", str(self.end))])
            if last:
                tables.remove(STUDY, study)
        self._write_mark()
        db.execute(f"PRAGMA incremental_vacuum({_FREED_PAGES})").fetchall()
        if last:
            del self.studies[study]
        if removed and self._tail_start < stop:
            self._drop_tail(stop - self._tail_start)
        return removed

    def _load(self, n_damaged: int) -> None:
        """Load the state, after the repair of a number of damaged places."""
        self._reader = VerifiedReader(self._db)
        self._tables = SmallTables(self._db)
        state = read_state(self._db, self._tables, self._reader, self._watermark.read())
        if state.problems:
            write_state(self._tables, state)
        self._n_damaged_entries = state.n_damaged + n_damaged
        self.lost = state.lost  #: number of offsets whose events are known to be lost
        self.log_id: str = state.log_id
        self._log_id_bytes = bytes.fromhex(state.log_id)
        self.end = state.end
        self.publishers = state.publishers
        self.durable = state.durable
        self.readings = state.readings
        self.sessions = state.sessions
        self.session_keys = state.session_keys
        self.studies = state.studies
        self._load_last()
        self._write_mark()
        self._write_mark()  # into its other slot
        self._tail: list[Record] = []
        self._tail_start = self.end
        self._tail_bytes = 0

    def _load_last(self) -> None:
        """Load the last row, which the checksum of the next row continues, if the row is intact."""
        row = self._db.execute(
            "SELECT offset, CAST(topic AS BLOB), rare, checksum FROM event"
            " ORDER BY offset DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return
        offset = row[0]
        if any(self._reader.read(offset, offset + 1, 1)):
            self._last_checksum = row[3]
            self._last_rare = offset if is_rare(row[1].decode()) else row[2]
        else:
            self._last_rare = offset  # readers by the index then look at all rows

    def _spans(self, rows: list[EventRow]) -> dict[str, Span]:
        """Return the spans that new events begin or end."""
        spans: dict[str, Span] = {}
        for offset, _, _, topic, *_ in rows:
            if not topic.startswith((_SUBMITTED, _FINISHED)):
                continue
            name = topic.split("/")[1]
            known = spans.get(name) or self.studies.get(name)
            first = known.first if known else offset
            if topic.startswith(_SUBMITTED):
                spans[name] = Span(first)
            else:
                spans[name] = Span(first, offset, self._wall_clock())
        return spans

    def _write_mark(self) -> None:
        self._watermark.write(Mark(self._log_id_bytes, self.end, self._tables.n_commits))

    def _write_durable(self, change: Change) -> None:
        tables, committed = self._tables, change.committed
        tables.put(DURABLE, [(name, o) for name, o in committed.items() if o is not None])
        tables.put(READING, make_reading_rows(change.readings))
        for name in [name for name, offset in committed.items() if offset is None]:
            tables.remove(DURABLE, name)
            tables.remove(READING, name)

    def _write_sessions(self, change: Change) -> None:
        tables, sessions = self._tables, change.sessions
        alive = {id_: hello for id_, hello in sessions.items() if hello is not None}
        tables.put(SESSION, make_session_rows(alive, self._wall_clock()))
        tables.put(SESSION_KEY, change.session_keys.items())
        for id_ in [id_ for id_, hello in sessions.items() if hello is None]:
            tables.remove(SESSION, id_)
            tables.remove(SESSION_KEY, id_)

    def _extend_tail(self, records: list[Record], size: int) -> None:
        self._tail += records
        self._tail_bytes += size
        if len(self._tail) > 2 * _TAIL or self._tail_bytes > 2 * _TAIL_BYTES:
            while len(self._tail) > _TAIL or self._tail_bytes > _TAIL_BYTES:
                self._drop_tail(max(1, len(self._tail) // 8))

    def _drop_tail(self, count: int) -> None:
        self._tail_bytes -= sum(len(record.body) for record in self._tail[:count])
        del self._tail[:count]
        self._tail_start = self._tail[0].offset if self._tail else self.end
