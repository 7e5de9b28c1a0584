"""Small tables of the log: damage is noticed and repaired, a lost tail is skipped."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trialbus.errors import LogError
from trialbus.hub.log import Change, EventLog
from trialbus.hub.small_tables import META, PUBLISHER, SmallTables
from trialbus.protocol.frames import Hello

_P = b"p" * 16
_ALL = frozenset({"*/*/*"})
_HELLO = Hello(session="s-1", kind="trainer", name="t", ttl_ms=9000, study="a", trial=3)


def append(log: EventLog, first: int, topics: list[str], publisher: bytes = _P) -> None:
    events = [(publisher, first + i, topic, msgspec.Raw(b"\xc0")) for i, topic in enumerate(topics)]
    log.append(Change(events=events, publishers={publisher: first + len(topics) - 1}))


def make_log(directory: Path) -> None:
    """Write a log with an entry in every table."""
    log = EventLog(directory)
    topics = ["study_submitted/a/", *["evaluation_complete/a/1"] * 7, "study_finished/a/"]
    append(log, 1, topics)
    log.append(Change(committed={"reader": 6}, sessions={"s-1": _HELLO}))
    append(log, 1, ["study_submitted/b/", "study_finished/b/"], b"q" * 16)
    log.forget("b", 9, 11, last=True)
    log.close()


def state(log: EventLog) -> tuple[Any, ...]:
    spans = {name: (span.first, span.finished) for name, span in log.studies.items()}
    return log.log_id, log.end, log.publishers, log.durable, log.sessions, spans


@pytest.mark.parametrize(
    ("change", "is_durable_lost"),
    [
        ("UPDATE publisher SET last = last + 5", False),
        ("UPDATE publisher SET id = x'00' WHERE last = 9", False),
        ("DELETE FROM publisher", False),
        ("UPDATE durable SET offset = 9", True),
        ("UPDATE session SET hello = CAST('x' AS BLOB) || hello", False),
        ("UPDATE study SET finished = NULL", False),
        ("DELETE FROM study", False),
        ("UPDATE meta SET value = '3' WHERE key = 'end'", False),
        ("UPDATE meta SET value = 'ab' WHERE key = 'log_id'", False),
        ("DELETE FROM meta WHERE key = 'digest'", False),
        ("UPDATE publisher SET last = CAST(x'FF' AS TEXT)", False),
    ],
)
def test_a_damaged_entry_is_counted_once_and_mended_from_the_events(
    tmp_path: Path, change: str, is_durable_lost: bool
) -> None:
    make_log(tmp_path)
    with closing(EventLog(tmp_path)) as log:
        log_id, end, publishers, durable, sessions, studies = state(log)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as db:
        db.execute(change)
    if is_durable_lost:
        durable = {"reader": 0}  # it reads again: twice is better than never
    if "session" in change:
        sessions = {}
    for is_damaged in (True, False):
        with closing(EventLog(tmp_path)) as log:
            assert (log.damaged > 0) is is_damaged
            assert log.publishers[_P] == publishers[_P]
            assert (log.log_id, log.end) == (log_id, end)
            assert state(log)[3:] == (durable, sessions, studies)


def test_an_older_state_of_a_table_is_noticed_though_its_rows_verify(tmp_path: Path) -> None:
    make_log(tmp_path)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as db:
        PUBLISHER.put(db, [(_P, 4)])
    with closing(EventLog(tmp_path)) as log:
        assert log.damaged > 0
        assert log.publishers[_P] == 9  # the newest of its events that is left


def test_a_log_that_lost_its_id_and_watermark_is_refused_with_a_way_out(tmp_path: Path) -> None:
    make_log(tmp_path)
    (tmp_path / "events.end").unlink()
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = 'ab' WHERE key = 'log_id'")
    with pytest.raises(LogError, match="log check --repair"):
        EventLog(tmp_path)


def put_older_copy_back(directory: Path, older: Path) -> None:
    shutil.copy(older / "events.db", directory / "events.db")


def delete_wal(directory: Path, _older: Path) -> None:
    (directory / "events.db-wal").unlink()


def cut_wal(directory: Path, _older: Path) -> None:
    wal = directory / "events.db-wal"
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])


@pytest.mark.parametrize("lose_tail", [put_older_copy_back, delete_wal, cut_wal])
def test_a_lost_tail_is_noticed_at_the_start_and_its_offsets_are_not_given_again(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    lose_tail: Callable[[Path, Path], None],
) -> None:
    directory, older, crashed = (tmp_path / name for name in ("log", "older", "crashed"))
    with closing(EventLog(directory)) as log:
        append(log, 1, ["evaluation_complete/a/1"] * 5)
    shutil.copytree(directory, older)
    log = EventLog(directory)
    for first in range(6, 206, 10):
        append(log, first, ["evaluation_complete/a/1"] * 10)
    shutil.copytree(directory, crashed)  # as a SIGKILL leaves it
    log.close()
    lose_tail(crashed, older)
    (crashed / "events.db-shm").unlink(missing_ok=True)
    if lose_tail is put_older_copy_back:
        (crashed / "events.db-wal").unlink()
    with caplog.at_level(logging.ERROR):
        log = EventLog(crashed)
    assert log.end == 205
    assert log.lost > 0
    assert f"the events {205 - log.lost} to 204:" in caplog.text
    n_left = 205 - log.lost
    append(log, 206, ["evaluation_complete/a/1"])
    records, _ = log.read(0, _ALL, max_events=1000, max_bytes=1 << 20)
    assert [record.offset for record in records] == [*range(n_left), 205]
    lost = log.lost
    log.close()
    with closing(EventLog(crashed)) as log:
        assert (log.lost, log.end, log.damaged) == (lost, 206, 0)


def test_a_deleted_file_of_a_log_is_a_lost_tail(tmp_path: Path) -> None:
    make_log(tmp_path)
    with closing(EventLog(tmp_path)) as log:
        log_id = log.log_id
    for path in tmp_path.glob("events.db*"):
        path.unlink()
    for _ in range(2):
        with closing(EventLog(tmp_path)) as log:
            assert (log.log_id, log.end, log.lost) == (log_id, 11, 11)


def test_a_folder_that_was_emptied_begins_a_new_log(tmp_path: Path) -> None:
    make_log(tmp_path)
    for path in tmp_path.glob("events.*"):
        path.unlink()
    with closing(EventLog(tmp_path)) as log:
        assert (log.end, log.lost) == (0, 0)


def test_a_client_beyond_the_end_has_read_a_lost_tail(tmp_path: Path) -> None:
    make_log(tmp_path)
    log = EventLog(tmp_path)
    assert log.covers(log.end)
    assert not log.covers(-3)
    assert not log.covers(1 << 61)
    assert not log.covers(12, is_trusted=False)
    assert (log.end, log.lost) == (11, 0)
    assert log.covers(20)
    append(log, 12, ["evaluation_complete/a/1"])
    assert (log.end, log.lost) == (21, 9)
    assert [r.offset for r in log.read(11, _ALL, max_events=9, max_bytes=99)[0]] == [20]
    believed = [log.covers(log.end + 1) for _ in range(20)]
    assert believed == [True] * 9 + [False] * 11
    log.close()


def test_a_failed_transaction_leaves_the_digest_as_it_was(tmp_path: Path) -> None:
    make_log(tmp_path)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as db:
        tables = SmallTables(db)
        assert tables.load()[1] == {}
        with pytest.raises(sqlite3.IntegrityError), tables.transaction():
            tables.put(PUBLISHER, [(b"r" * 16, 1), (None, 1)])
        with tables.transaction():
            tables.put(META, [("note", "x")])
            tables.remove(META, "note")
        assert SmallTables(db).load()[1] == {}
