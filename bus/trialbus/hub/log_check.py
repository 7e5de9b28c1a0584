"""Check of a whole log, and repair: a new log of the intact events."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from trialbus.errors import LogError
from trialbus.hub.integrity import VerifiedReader, chain_rows, format_offsets
from trialbus.hub.log_format import FORMAT, create, read_format, take_lock
from trialbus.hub.log_state import LogState, Span, read_state, write_state
from trialbus.hub.small_tables import SmallTables
from trialbus.hub.watermark import Mark, Watermark, read_mark
from trialbus.protocol.frames import Record
from trialbus.protocol.private_folder import open_private_file

_BATCH = 10_000


@dataclass(frozen=True)
class DamagedRange:
    """Range of offsets of events that cannot be delivered."""

    first: int
    """First of the offsets."""
    stop: int
    """Offset after the last."""
    reason: str
    """What is wrong with the events."""
    studies: list[str]
    """Studies that the events belonged to, as far as can be told."""

    def __str__(self) -> str:
        studies = f" (study {', '.join(self.studies)})" if self.studies else ""
        return f"{format_offsets(self.first, self.stop)}: {self.reason}{studies}"


@dataclass
class LogReport:
    """Findings of a check of a log."""

    path: Path
    """File of the log."""
    log_id: str = ""
    """Id of the log; empty where it cannot be read."""
    end: int = 0
    """Offset that the next event gets."""
    n_events: int = 0
    """Number of events that are intact."""
    damaged: list[DamagedRange] = field(default_factory=list[DamagedRange])
    """Events that are damaged or gone."""
    problems: list[str] = field(default_factory=list[str])
    """What is wrong with the tables and the file, in sentences."""
    lost: int = 0
    """Events known to be lost before, by a repair or with the tail of the log."""
    backup: Path | None = None
    """Folder into which a repair moved the damaged file."""

    @property
    def is_intact(self) -> bool:
        """Whether the log has no damage."""
        return not self.damaged and not self.problems


def check_log(directory: Path | str) -> LogReport:
    """Read a whole log and return the damage; a hub may be running.

    Raises:
        LogError: There is no log in the directory, or it has the format of another version.

    Example:
        >>> check_log(".trialbus").is_intact  # doctest: +SKIP
        True
    """
    path = _find_log(directory)
    report = LogReport(path)
    try:
        with closing(_open_to_read(path)) as db:
            _check_format(db, path)
            _read_log(db, report, _read_watermark(path))
            report.problems += _check_pages(db)
    except sqlite3.DatabaseError as error:
        report.problems.append(f"{path.name} cannot be read as a database: {error}")
    return report


def repair_log(directory: Path | str) -> LogReport:
    """Write a new log of the intact events of a damaged log, and put the damaged file aside.

    Events keep their offsets. The offsets of the others stay empty and count as lost, as far as the
    watermark knows of them. A log in which nothing is damaged is left as it is.

    Raises:
        LogError: A hub has the log open, or there is no log, or no space for another.
    """
    path = _find_log(directory)
    with take_lock(path):
        report = check_log(directory)
        if report.is_intact:
            return report
        repaired = path.with_suffix(".repaired")
        repaired.unlink(missing_ok=True)
        try:
            report = _write_repaired(path, repaired)
            report.backup = _put_aside(path)
        except (OSError, sqlite3.Error) as error:
            repaired.unlink(missing_ok=True)
            raise LogError(f"{path} cannot be repaired: {error}") from error
        repaired.replace(path)
    return report


def _find_log(directory: Path | str) -> Path:
    path = Path(directory) / "events.db"
    if not path.is_file():
        raise LogError(f"there is no log at {path}; name its folder, as bus.dir does")
    return path


def _open_to_read(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.text_factory = bytes
    return db


def _check_format(db: sqlite3.Connection, path: Path) -> None:
    format_ = read_format(db)
    if format_ in {"2", "3"}:
        raise LogError(f"{path} has format {format_!r}; start a hub on it once, which converts it")
    if format_ != FORMAT and format_.isdigit() and int(format_) > int(FORMAT):
        raise LogError(f"{path} has format {format_!r}; this version reads {FORMAT!r}")


def _read_watermark(path: Path) -> Mark | None:
    try:
        return read_mark(path.with_suffix(".end").read_bytes())
    except OSError:
        return None


def _read_log(
    db: sqlite3.Connection, report: LogReport, mark: Mark | None, copy: EventCopy | None = None
) -> LogState:
    """Read all events and tables into a report, and the events into a copy."""
    ranges: list[tuple[int, int, str]] = []

    def add(first: int, stop: int, reason: str) -> None:
        ranges.append((first, stop, reason))

    db.execute("BEGIN")  # one state of the log, whatever a hub writes meanwhile
    reader = VerifiedReader(db, add)
    state = read_state(db, SmallTables(db), reader, mark, salvage=True)
    for record in _read_events(reader, state.end):
        report.n_events += 1
        if copy is not None:
            copy.add(record)
    report.log_id, report.end, report.lost = state.log_id, state.end, state.lost
    report.problems += state.problems
    report.damaged = [
        DamagedRange(first, stop, reason, _find_studies(state.studies, first, stop))
        for first, stop, reason in _join(ranges)
        if not any(gap_first <= first and stop <= gap_stop for gap_stop, gap_first, _ in state.gaps)
    ]
    state.gaps += [(damage.stop, damage.first, "damaged") for damage in report.damaged]
    return state


def _read_events(reader: VerifiedReader, end: int) -> Iterator[Record]:
    position = 0
    while position < end:
        yield from reader.read(position, end, _BATCH)
        position = reader.position


def _join(ranges: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    joined: list[tuple[int, int, str]] = []
    for first, stop, reason in sorted(set(ranges)):
        if joined and joined[-1][1] >= first and joined[-1][2] == reason:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop), reason)
        elif not joined or joined[-1][1] < stop:
            first_left = max(first, joined[-1][1]) if joined else first
            joined.append((first_left, stop, reason))
    return joined


def _find_studies(studies: dict[str, Span], first: int, stop: int) -> list[str]:
    """Return the studies that were running while the offsets from `first` up to `stop` were given.

    The topics of damaged rows are not asked: they may be what is damaged.
    """
    return sorted(
        name
        for name, span in studies.items()
        if span.first < stop and (span.finished is None or span.finished >= first)
    )


def _check_pages(db: sqlite3.Connection) -> list[str]:
    """Return the first errors of SQLite's integrity check of the file."""
    try:
        rows = [bytes(row[0]).decode() for row in db.execute("PRAGMA integrity_check(5)")]
    except sqlite3.DatabaseError as error:
        return [f"SQLite: {error}"]
    lines = [line for row in rows for line in row.splitlines() if not line.startswith("***")]
    return [f"SQLite: {line}" for line in lines if line != "ok"][:5]


class EventCopy:
    """Writer of events into a new log, under the same offsets and with new checksums.

    Args:
        db: The new log.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._events: list[tuple[int, bytes, int, str, bytes]] = []
        self._previous = 0
        self._rare = -1

    def add(self, record: Record) -> None:
        """Add the next event."""
        body = bytes(record.body)
        self._events.append((record.offset, record.publisher, record.seq, record.topic, body))
        if len(self._events) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the events that wait."""
        rows, self._previous, self._rare = chain_rows(self._events, self._previous, self._rare)
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")
        self._events.clear()


def _write_repaired(path: Path, repaired: Path) -> LogReport:
    report = LogReport(path)
    mark = _read_watermark(path)
    os.close(open_private_file(repaired))
    with closing(sqlite3.connect(repaired, isolation_level=None)) as new:
        new.execute("PRAGMA auto_vacuum=INCREMENTAL")
        create(new, mark.log_id.hex() if mark else "")
        new.text_factory = bytes
        copy = EventCopy(new)
        try:
            with closing(_open_to_read(path)) as db:
                _check_format(db, path)
                state = _read_log(db, report, mark, copy)
        except sqlite3.DatabaseError as error:
            report.problems.append(f"{path.name} cannot be read as a database: {error}")
            state = _begin_anew(mark)
            report.log_id, report.end, report.lost = state.log_id, state.end, state.lost
        copy.flush()
        tables = SmallTables(new)
        tables.load()
        state.n_commits += 1
        write_state(tables, state)
    with closing(Watermark(path.with_suffix(".end"))) as watermark:
        for _ in range(2):  # slots
            watermark.write(Mark(bytes.fromhex(state.log_id), state.end, state.n_commits))
    return report


def _begin_anew(mark: Mark | None) -> LogState:
    """Return the state of a lost log, from the watermark if the file is left."""
    mark = mark or Mark(os.urandom(16), 0, 0)
    return LogState(
        log_id=mark.log_id.hex(),
        end=mark.end,
        publishers={},
        durable={},
        readings={},
        sessions={},
        session_keys={},
        studies={},
        gaps=[(mark.end, 0, "lost")] if mark.end else [],
        created=f"{time.time():.3f}",
        n_commits=mark.n_commits,
        problems=[],
    )


def _put_aside(path: Path) -> Path:
    """Move the files of a log into a folder beside the log and return the folder."""
    folder = path.with_name(time.strftime("damaged-%Y%m%d-%H%M%S"))
    folder.mkdir(mode=0o700)
    for suffix in ("-wal", "-shm", ""):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(folder / file.name)
    return folder
