"""LogState: state of an opened log, with damaged entries repaired from the events."""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from trialbus.errors import LogError
from trialbus.hub.checked_table import Row
from trialbus.hub.integrity import VerifiedReader
from trialbus.hub.log_format import FORMAT
from trialbus.hub.small_tables import (
    DURABLE,
    GAP,
    META,
    PUBLISHER,
    READING,
    SESSION,
    SESSION_KEY,
    STUDY,
    SmallTables,
)
from trialbus.hub.watermark import Mark
from trialbus.messages import codec
from trialbus.protocol.frames import Hello

logger = logging.getLogger(__name__)

_SUBMITTED, _FINISHED = "study_submitted", "study_finished"
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_LOST = frozenset({"lost", "damaged"})


@dataclass(frozen=True)
class Span:
    """Where a study lies in the log."""

    first: int
    """Offset of the study's first `study_submitted`."""
    finished: int | None = None
    """Offset of the `study_finished` that ended the study; None while the study runs."""
    finished_at: float = 0.0
    """Time of that event's arrival, in seconds since the epoch."""


@dataclass(frozen=True)
class NameUse:
    """The key and the patterns of a durable name."""

    key: str
    """Name of the key that used the name first; empty without keys."""
    patterns: str
    """Patterns of the first fetch, in order, one a line."""


@dataclass
class LogState:
    """The content of the small tables of a log."""

    log_id: str
    """Id of the log."""
    end: int
    """Offset that the next event gets."""
    publishers: dict[bytes, int]
    """Sequence number of the newest event of every publisher."""
    durable: dict[str, int]
    """Committed offset of every durable name."""
    readings: dict[str, NameUse]
    """Key and patterns of every durable name."""
    sessions: dict[str, Hello]
    """Sessions that are alive."""
    session_keys: dict[str, str]
    """Names of the keys that registered them, if there are keys."""
    studies: dict[str, Span]
    """Where every study lies, by its name in topics."""
    gaps: list[Row]
    """Offsets without an event, as rows of `GAP`."""
    created: str
    """Time at which the log was made, in seconds since the epoch."""
    n_commits: int
    """Number of transactions since the log was made."""
    problems: list[str]
    """What was found damaged and mended; the tables have to be written if there is anything."""
    n_damaged: int = 0
    """Number of entries and commits that were found damaged or gone."""

    @property
    def lost(self) -> int:
        """Number of offsets of events that are known to be lost."""
        return sum(stop - first for stop, first, reason in self.gaps if reason in _LOST)


def read_state(
    db: sqlite3.Connection,
    tables: SmallTables,
    reader: VerifiedReader,
    mark: Mark | None,
    *,
    salvage: bool = False,
) -> LogState:
    """Read the state of a log, with repaired entries and without a lost tail, in memory only.

    Args:
        db: The log.
        tables: Its small tables.
        reader: Reads its events.
        mark: What its watermark says.
        salvage: Go on where something cannot be read, instead of raising.

    Raises:
        LogError: The log's id is damaged, and the watermark does not have it either.
        sqlite3.DatabaseError: A page of a table cannot be read.
    """
    intact, damaged = tables.load(salvage=salvage)
    meta: dict[str, str] = {row[0]: row[1] for row in intact[META.name]}
    log_id = meta.get("log_id") or (mark.log_id.hex() if META.name in damaged and mark else None)
    if log_id is None and not salvage:
        raise LogError("the log has lost its id; run: trialbus log check --repair")
    log_id = log_id or uuid.uuid4().hex
    state = LogState(
        log_id=log_id,
        end=int(meta.get("end", 0)),
        publishers={row[0]: row[1] for row in intact[PUBLISHER.name]},
        durable={row[0]: row[1] for row in intact[DURABLE.name]},
        readings={name: NameUse(*reading) for name, *reading in intact[READING.name]},
        sessions=_decode_sessions(intact[SESSION.name]),
        session_keys={row[0]: row[1] for row in intact[SESSION_KEY.name]},
        studies={name: Span(*span) for name, *span in intact[STUDY.name]},
        gaps=intact[GAP.name],
        created=meta.get("created", f"{time.time():.3f}"),
        n_commits=tables.n_commits,
        problems=[],
    )
    try:
        newest = db.execute("SELECT max(offset) FROM event").fetchone()[0]
    except sqlite3.DatabaseError:
        if not salvage:
            raise
        newest = max(state.durable.values(), default=0)
    ends = [stop for stop, *_ in state.gaps]
    state.end = max([state.end, 0 if newest is None else newest + 1, *ends])
    mark = mark if mark is not None and mark.log_id.hex() == log_id else None
    if damaged:
        _mend(state, damaged, reader, max(state.end, mark.end if mark and salvage else 0))
    if mark is not None:
        _compare(state, mark)
    for problem in state.problems:
        logger.error("%s", problem)
    return state


def add_entries(state: LogState, db: sqlite3.Connection) -> None:
    """Add the publishers and the studies of all events of a log to its state."""
    _add_from_events(state, VerifiedReader(db, _ignore_damage), state.end)


def _ignore_damage(_first: int, _stop: int, _reason: str) -> None:
    """Report no damage, which was reported before."""


def make_session_rows(sessions: Mapping[str, Hello], now: float) -> list[Row]:
    """Return the rows of sessions that were seen at a time, in seconds since the epoch."""
    return [(id_, msgspec.msgpack.encode(hello), now) for id_, hello in sessions.items()]


def make_reading_rows(readings: Mapping[str, NameUse]) -> list[Row]:
    """Return the rows of durable names."""
    return [(name, reading.key, reading.patterns) for name, reading in readings.items()]


def make_study_rows(studies: Mapping[str, Span]) -> list[Row]:
    """Return the rows of studies."""
    return [(name, s.first, s.finished, s.finished_at) for name, s in studies.items()]


def write_state(tables: SmallTables, state: LogState) -> None:
    """Write a state as the content of the small tables."""
    tables.n_commits = state.n_commits
    tables.replace_all(
        {
            META.name: [
                ("format", FORMAT),
                ("log_id", state.log_id),
                ("created", state.created),
                ("end", str(state.end)),
            ],
            PUBLISHER.name: list(state.publishers.items()),
            DURABLE.name: list(state.durable.items()),
            READING.name: make_reading_rows(state.readings),
            SESSION_KEY.name: list(state.session_keys.items()),
            SESSION.name: make_session_rows(state.sessions, time.time()),
            STUDY.name: make_study_rows(state.studies),
            GAP.name: state.gaps,
        }
    )


def _mend(state: LogState, damaged: dict[str, list[Row]], reader: VerifiedReader, end: int) -> None:
    """Add entries from the events, and from damaged rows as far as certain."""
    rows = {name: len(entries) for name, entries in damaged.items() if entries}
    state.n_damaged = max(1, sum(rows.values()))
    described = ", ".join(f"{n} of {name}" for name, n in rows.items()) or "an older state"
    state.problems.append(
        f"the log's tables are damaged ({described}): publishers and studies are read from the"
        " events, damaged durable names begin again"
    )
    _add_from_events(state, reader, end)
    for name, *_ in damaged.get(DURABLE.name, []):
        try:
            # Twice is better than never.
            state.durable.setdefault(bytes(name).decode(), 0)
        except (TypeError, UnicodeDecodeError):
            continue
    # A session that is dropped would leave its trial running for ever; one too many expires.
    state.sessions.update(_decode_sessions(damaged.get(SESSION.name, [])))


def _add_from_events(state: LogState, reader: VerifiedReader, end: int) -> None:
    """Add the publishers and the studies of the events before an offset."""
    position, now = 0, time.time()
    while position < end:
        for record in reader.read(position, end, end):
            last = state.publishers.get(record.publisher, 0)
            state.publishers[record.publisher] = max(record.seq, last)
            type_, study, _ = record.topic.split("/", 2)
            if type_ in {_SUBMITTED, _FINISHED}:
                first = state.studies.get(study, Span(record.offset)).first
                is_end = type_ == _FINISHED
                state.studies[study] = Span(first, record.offset, now) if is_end else Span(first)
        position = reader.position


def _compare(state: LogState, mark: Mark) -> None:
    """Count lost commits, and skip the offsets of the lost events."""
    n_lost = mark.n_commits - state.n_commits
    if n_lost <= 0 and mark.end <= state.end:
        return
    state.problems.append(
        f"the log lost its last {n_lost} commits, and with them the events {state.end} to"
        f" {mark.end - 1}: was an older copy restored, or events.db-wal deleted?"
    )
    state.n_damaged += max(1, n_lost)
    state.n_commits = max(state.n_commits, mark.n_commits)
    if mark.end > state.end:
        state.gaps.append((mark.end, state.end, "lost"))
        state.end = mark.end


def _decode_sessions(rows: list[Row]) -> dict[str, Hello]:
    sessions: dict[str, Hello] = {}
    for id_, hello, *_ in rows:
        try:
            key = id_ if isinstance(id_, str) else bytes(id_).decode()
            sessions[key] = codec.decode_with(_hello_decoder, hello)
        except (TypeError, UnicodeDecodeError, msgspec.DecodeError):
            continue
    return sessions
