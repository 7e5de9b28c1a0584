"""Check of a whole log: what is damaged, and which studies the damage touches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from trialbus.errors import LogError
from trialbus.hub.integrity import VerifiedReader, format_offsets
from trialbus.hub.log_files import locate_replacement
from trialbus.hub.log_format import FORMAT, read_format
from trialbus.hub.log_state import LogState, Span, read_state
from trialbus.hub.small_tables import SmallTables, read_commit_count
from trialbus.hub.wal import is_wal_alone, name_wal, read_wal
from trialbus.hub.watermark import Mark, read_mark
from trialbus.protocol.frames import Record

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
    path = find_log(directory)
    report = LogReport(path)
    mark = read_watermark(path)
    if locate_replacement(path).exists():
        report.problems.append(
            f"{locate_replacement(path).name} is the log of a repair that was interrupted; a hub"
            " that starts, or --repair, puts it in place"
        )
    if is_wal_alone(path):
        report.problems.append(
            f"{path.name} is gone or empty, and {name_wal(path).name} is there; a hub that starts"
            " brings back the events in it"
        )
        return report
    try:
        with closing(open_to_read(path)) as db:
            check_format(db, path)
            read_log(db, report, mark)
            if mark is not None and read_commit_count(db) < mark.n_commits:
                report.problems += _check_wal(path)
            report.problems += _check_pages(db)
    except sqlite3.DatabaseError as error:
        report.problems.append(f"{path.name} cannot be read as a database: {error}")
        report.problems += _check_wal(path)
    return report


def find_log(directory: Path | str) -> Path:
    """Return the file of the log in a directory.

    Raises:
        LogError: There is none.
    """
    path = Path(directory) / "events.db"
    if not path.is_file() and not locate_replacement(path).is_file() and not is_wal_alone(path):
        raise LogError(f"there is no log at {path}; name its folder, as bus.dir does")
    return path


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a log without changing anything; a hub may be running."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.text_factory = bytes
    return db


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Raise an error for a log of another version.

    Raises:
        LogError: The log has the format of an older or of a newer version.
    """
    format_ = read_format(db)
    if format_ in {"2", "3"}:
        raise LogError(f"{path} has format {format_!r}; start a hub on it once, which converts it")
    if format_ != FORMAT and format_.isdigit() and int(format_) > int(FORMAT):
        raise LogError(f"{path} has format {format_!r}; this version reads {FORMAT!r}")


def read_watermark(path: Path) -> Mark | None:
    """Return how far a log had come; None if nothing is known."""
    try:
        return read_mark(path.with_suffix(".end").read_bytes())
    except OSError:
        return None


def read_log(db: sqlite3.Connection, report: LogReport, mark: Mark | None) -> LogState:
    """Read all events and tables of an open log into a report, and return the state."""
    ranges: list[tuple[int, int, str]] = []

    def add(first: int, stop: int, reason: str) -> None:
        ranges.append((first, stop, reason))

    db.execute("BEGIN")  # one state of the log, whatever a hub writes meanwhile
    reader = VerifiedReader(db, add)
    state = read_state(db, SmallTables(db), reader, mark, salvage=True)
    for _ in iterate_events(reader, state.end):
        report.n_events += 1
    report.log_id, report.end, report.lost = state.log_id, state.end, state.lost
    report.problems += state.problems
    report.damaged = [
        DamagedRange(first, stop, reason, _find_studies(state.studies, first, stop))
        for first, stop, reason in _join(ranges)
        if not any(gap_first <= first and stop <= gap_stop for gap_stop, gap_first, _ in state.gaps)
    ]
    state.gaps += [(damage.stop, damage.first, "damaged") for damage in report.damaged]
    return state


def iterate_events(reader: VerifiedReader, end: int, first: int = 0) -> Iterator[Record]:
    """Yield the events of an open log from an offset on up to its end."""
    position = first
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


def _check_wal(path: Path) -> list[str]:
    """Return what is wrong with the write-ahead log of a log that lacks commits."""
    try:
        wal = read_wal(path)
    except OSError as error:
        return [f"{name_wal(path).name} cannot be read: {error.strerror}"]
    if wal is None or not wal.n_corrected + wal.n_damaged:
        return []
    n_places = wal.n_corrected + wal.n_damaged
    advice = "a hub that starts brings back what is intact behind the damage"
    return [f"{name_wal(path).name} is damaged in {n_places} places; {advice}"]


def _check_pages(db: sqlite3.Connection) -> list[str]:
    """Return the first errors of SQLite's integrity check of the file."""
    try:
        rows = [bytes(row[0]).decode() for row in db.execute("PRAGMA integrity_check(5)")]
    except sqlite3.DatabaseError as error:
        return [f"SQLite: {error}"]
    lines = [line for row in rows for line in row.splitlines() if not line.startswith("***")]
    return [f"SQLite: {line}" for line in lines if line != "ok"][:5]
