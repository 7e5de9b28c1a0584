"""Repair of a log: flipped bits are corrected, or a new log is written of what is intact.

SQLite cannot read behind a damaged frame of the write-ahead log, nor behind a damaged page. What
lies there is read from the pages themselves, see `trialbus.hub.carving`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path

from trialbus.errors import LogError
from trialbus.hub.carved_events import CarvedEvents
from trialbus.hub.carving import PageCarver
from trialbus.hub.integrity import chain_rows
from trialbus.hub.log_check import (
    LogReport,
    check_format,
    check_log,
    find_log,
    open_to_read,
    read_log,
    read_watermark,
)
from trialbus.hub.log_files import (
    LogFiles,
    finish_replacement,
    locate_replacement,
    make_folder_beside,
    replace_log,
)
from trialbus.hub.log_format import create
from trialbus.hub.log_state import LogState, add_entries, write_state
from trialbus.hub.small_tables import TABLES, SmallTables, read_commit_count, read_log_id
from trialbus.hub.wal import Wal, is_wal_alone, name_wal, read_wal
from trialbus.hub.watermark import Mark, Watermark
from trialbus.protocol.private_folder import open_private_file

logger = logging.getLogger(__name__)

_BATCH = 10_000


def repair_log(directory: Path | str) -> LogReport:
    """Write a new log of the intact events of a damaged log, and put the damaged files aside.

    Events keep their offsets. The offsets of the others stay empty and count as lost, as far as the
    watermark knows of them. A log in which nothing is damaged is left as it is.

    Raises:
        LogError: A hub has the log open, or there is no log, or no space for another.
    """
    path = find_log(directory)
    try:
        with LogFiles(path):
            Watermark(path.with_suffix(".end")).close()  # an error comes before any change
            _finish_repair(path)
            return _repair(path, check_log(directory))
    except (OSError, sqlite3.Error) as error:
        raise LogError(f"{path} cannot be repaired: {error}") from error


def _repair(path: Path, report: LogReport) -> LogReport:
    """Repair a log that a check found damaged, and return what is left."""
    if report.is_intact:
        return report
    mark = read_watermark(path)
    wal = read_wal(path)
    backup = _correct_wal(path, wal, mark)
    if backup is not None:
        corrected = check_log(path.parent)
        corrected.backup = backup
        if corrected.is_intact:
            corrected.problems = report.problems
            return corrected
    return _rebuild(path, wal, mark)


def recover_tail(path: Path, mark: Mark | None) -> int:
    """Bring back the commits that lie behind damaged frames of the write-ahead log.

    A repair that was killed when the new log was complete is finished first.

    Args:
        path: File of the log, which no process has open.
        mark: How far the log had come.

    Returns:
        Number of places that could not be restored exactly.

    Raises:
        OSError, sqlite3.Error: The files cannot be read or written.
    """
    _finish_repair(path)
    wal_path = name_wal(path)
    if not wal_path.exists() or not wal_path.stat().st_size:
        return 0
    log_id, n_commits = _read_progress(path)
    if mark is not None and log_id not in {None, mark.log_id.hex()}:
        mark = None  # of the log that was here before
    # A mark is written behind every commit: an older one does not tell how far the log had come.
    is_end_known = mark is not None and n_commits <= mark.n_commits + 1
    if mark is not None and is_end_known and n_commits >= mark.n_commits:
        return 0
    wal = read_wal(path)
    backup = _correct_wal(path, wal, mark)
    if backup is not None:
        logger.warning("flipped bits in %s were corrected; a copy is in %s", wal_path, backup)
        return 0
    is_needed = is_end_known or n_commits < 0 or (wal and wal.has_commits_behind_damage)
    if wal is None or not is_needed:
        return 0
    logger.error(
        "%s lacks commits, and %s is damaged in %d places: a new log is written of what is intact",
        path,
        wal_path.name,
        wal.n_damaged,
    )
    report = _rebuild(path, wal, mark)
    logger.error(
        "%d events are left, up to offset %d; the damaged files are in %s",
        report.n_events,
        report.end - 1,
        report.backup,
    )
    return max(1, wal.n_damaged)


def _finish_repair(path: Path) -> None:
    if locate_replacement(path).exists():
        folder = finish_replacement(path)
        logger.warning(
            "a repair of %s that was killed is finished; the former files are in %s", path, folder
        )


def _read_progress(path: Path) -> tuple[str | None, int]:
    """Return the id and the number of commits that SQLite reads in a log; -1 if it reads none."""
    if not is_wal_alone(path):
        with contextlib.suppress(sqlite3.Error), closing(open_to_read(path)) as db:
            return read_log_id(db), read_commit_count(db)
    return None, -1


def _correct_wal(path: Path, wal: Wal | None, mark: Mark | None) -> Path | None:
    """Write a corrected write-ahead log; return the folder with a copy of the former one.

    Nothing is changed, and None returned, where the corrected one does not have all commits either.
    """
    if wal is None or not wal.n_corrected:
        return None
    n_wanted = max(mark.n_commits if mark else 0, _read_progress(path)[1] + 1)
    backup = make_folder_beside(path, "damaged")
    wal_path = name_wal(path)
    shutil.copy2(wal_path, backup)
    _write_wal(wal_path, bytes(wal.content))
    if _read_progress(path)[1] >= n_wanted:
        return backup
    _write_wal(wal_path, (backup / wal_path.name).read_bytes())
    shutil.rmtree(backup)
    return None


def _write_wal(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # SQLite's index of the frames: a process that still has it open goes on without the others.
    path.with_name(path.name.replace("-wal", "-shm")).unlink(missing_ok=True)


def _rebuild(path: Path, wal: Wal | None, mark: Mark | None) -> LogReport:
    """Write a new log of what is left in the pages, and put the damaged files aside."""
    repaired, carved = path.with_suffix(".repaired"), path.with_suffix(".carved")
    for file in (repaired, carved):
        file.unlink(missing_ok=True)
        os.close(open_private_file(file))
    os.close(open_private_file(path))  # a database that is gone is like an empty one
    try:
        with closing(PageCarver(path, wal)) as carver:
            rows = CarvedEvents(carver, carved, mark.end if mark else 0)
            with closing(rows):
                report, state = _write_repaired(path, repaired, rows, mark)
        report.backup = replace_log(path, repaired)
    finally:
        for file in (repaired, carved):
            file.unlink(missing_ok=True)
    _write_mark(path, state)
    return report


def _write_repaired(
    path: Path, repaired: Path, carved: CarvedEvents, mark: Mark | None
) -> tuple[LogReport, LogState]:
    report = LogReport(path)
    with closing(sqlite3.connect(repaired, isolation_level=None)) as new:
        new.execute("PRAGMA auto_vacuum=INCREMENTAL")
        create(new, mark.log_id.hex() if mark else "")
        new.text_factory = bytes
        for table in TABLES:
            table.put(new, carved.entries[table.name].values())
        check_format(new, path)
        _copy_events(new, carved.read())
        state = read_log(new, report, mark)
        new.execute("COMMIT")
        add_entries(state, new)
        tables = SmallTables(new)
        tables.load()
        state.n_commits += 1
        write_state(tables, state)
    return report, state


def _copy_events(
    db: sqlite3.Connection, events: Iterable[tuple[int, bytes, int, str, bytes]]
) -> None:
    """Write events into a new log, under the same offsets and with new checksums."""
    events = iter(events)
    previous, rare = 0, -1
    while batch := list(islice(events, _BATCH)):
        rows, previous, rare = chain_rows(batch, previous, rare)
        db.execute("BEGIN")
        db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")


def _write_mark(path: Path, state: LogState) -> None:
    with closing(Watermark(path.with_suffix(".end"))) as watermark:
        for _ in range(2):  # slots
            watermark.write(Mark(bytes.fromhex(state.log_id), state.end, state.n_commits))
