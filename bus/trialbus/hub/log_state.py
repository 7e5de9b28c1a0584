"""LogState: what a hub knows when it opens a log, with damaged entries mended from the events."""

from __future__ import annotations

import logging
import sqlite3
import time
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
    SESSION,
    STUDY,
    SmallTables,
)
from trialbus.hub.watermark import Mark, Watermark
from trialbus.protocol.frames import Hello

logger = logging.getLogger(__name__)

_SUBMITTED, _FINISHED = "study_submitted", "study_finished"


@dataclass(frozen=True)
class Span:
    """Where a study lies in the log."""

    first: int
    """Offset of the study's first `study_submitted`."""
    finished: int | None = None
    """Offset of the `study_finished` that ended the study; None while the study runs."""
    finished_at: float = 0.0
    """Time of that event's arrival, in seconds since the epoch."""


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
    sessions: dict[str, Hello]
    """Sessions that are alive."""
    studies: dict[str, Span]
    """Where every study lies, by its name in topics."""
    lost: int
    """Number of offsets whose events are known to be lost."""
    n_damaged: int = 0
    """Number of entries that were found damaged."""


def read_state(
    db: sqlite3.Connection, tables: SmallTables, reader: VerifiedReader, watermark: Watermark
) -> LogState:
    """Read the state of an open log, mend what is damaged, and skip a lost tail.

    Raises:
        LogError: The log's id is damaged, and the watermark does not have it either.
        sqlite3.DatabaseError: A page of a table cannot be read.
    """
    intact, damaged = tables.load()
    meta = dict(intact[META.name])
    mark = watermark.read()
    log_id = meta.get("log_id") or (mark.log_id.hex() if META.name in damaged and mark else None)
    if log_id is None:
        raise LogError(
            f"{watermark.path.with_suffix('.db')} has lost its id; run: trialbus log check --repair"
        )
    newest = db.execute("SELECT max(offset) FROM event").fetchone()[0]
    end = max(
        0 if newest is None else newest + 1,
        int(meta.get("end", 0)),
        max((stop for stop, *_ in intact[GAP.name]), default=0),
    )
    state = LogState(
        log_id=log_id,
        end=end,
        publishers=dict(intact[PUBLISHER.name]),
        durable=dict(intact[DURABLE.name]),
        sessions=_decode_sessions(intact[SESSION.name]),
        studies={name: Span(*span) for name, *span in intact[STUDY.name]},
        lost=sum(stop - first for stop, first, reason in intact[GAP.name] if reason != "removed"),
    )
    if damaged:
        _mend(state, damaged, reader)
        tables.replace_all(_list_rows(state, meta, intact[GAP.name]))
    if mark is not None and mark.log_id.hex() == log_id:
        _compare(state, tables, mark)
    return state


def _mend(state: LogState, damaged: dict[str, list[Row]], reader: VerifiedReader) -> None:
    """Add what the events tell, and what damaged rows still tell beyond doubt."""
    rows = {name: len(entries) for name, entries in damaged.items() if entries}
    state.n_damaged = max(1, sum(rows.values()))
    logger.error(
        "the log's tables are damaged (%s): publishers and studies are read from the events,"
        " damaged durable names begin again",
        ", ".join(f"{n} of {name}" for name, n in rows.items()) or "an older state",
    )
    position, now = 0, time.time()
    while position < state.end:
        for record in reader.read(position, state.end, state.end):
            last = state.publishers.get(record.publisher, 0)
            state.publishers[record.publisher] = max(record.seq, last)
            type_, study, _ = record.topic.split("/", 2)
            if type_ in {_SUBMITTED, _FINISHED}:
                first = state.studies.get(study, Span(record.offset)).first
                is_end = type_ == _FINISHED
                state.studies[study] = Span(first, record.offset, now) if is_end else Span(first)
        position = reader.position
    for name, *_ in damaged.get(DURABLE.name, []):
        try:
            # Twice is better than never.
            state.durable.setdefault(bytes(name).decode(), 0)
        except (TypeError, UnicodeDecodeError):
            continue
    # A session that is dropped would leave its trial running for ever; one too many expires.
    state.sessions.update(_decode_sessions(damaged.get(SESSION.name, [])))


def _compare(state: LogState, tables: SmallTables, mark: Mark) -> None:
    """Count lost commits, and skip the offsets of the events that were lost with them."""
    n_lost = mark.n_commits - tables.n_commits
    if n_lost <= 0 and mark.end <= state.end:
        return
    logger.error(
        "the log lost its last %d commits, and with them the events %d to %d: was an older copy"
        " put back, or events.db-wal deleted?",
        n_lost,
        state.end,
        mark.end - 1,
    )
    state.n_damaged += max(1, n_lost)
    tables.n_commits = max(tables.n_commits, mark.n_commits)
    with tables.transaction():
        if mark.end > state.end:
            tables.record_gap(state.end, mark.end, "lost")
            state.lost += mark.end - state.end
            state.end = mark.end


def _decode_sessions(rows: list[Row]) -> dict[str, Hello]:
    sessions: dict[str, Hello] = {}
    for id_, hello, *_ in rows:
        try:
            key = id_ if isinstance(id_, str) else bytes(id_).decode()
            sessions[key] = msgspec.msgpack.decode(hello, type=Hello)
        except (TypeError, UnicodeDecodeError, msgspec.DecodeError):
            continue
    return sessions


def _list_rows(state: LogState, meta: dict[str, str], gaps: list[Row]) -> dict[str, list[Row]]:
    now = time.time()
    meta |= {"log_id": state.log_id, "format": FORMAT}
    return {
        META.name: list(meta.items()),
        PUBLISHER.name: list(state.publishers.items()),
        DURABLE.name: list(state.durable.items()),
        SESSION.name: [
            (id_, msgspec.msgpack.encode(hello), now) for id_, hello in state.sessions.items()
        ],
        STUDY.name: [
            (name, s.first, s.finished, s.finished_at) for name, s in state.studies.items()
        ],
        GAP.name: gaps,
    }
