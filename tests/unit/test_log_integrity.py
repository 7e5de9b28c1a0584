"""A damaged log: damaged rows are counted and skipped, all other rows are read."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from support.damage import flip_bit
from trialbus.errors import LogError
from trialbus.hub import integrity
from trialbus.hub.log import Change, EventLog
from trialbus.hub.small_tables import TABLES
from trialbus.messages.topics import list_matching_patterns
from trialbus.protocol.frames import Record

_ALL = frozenset({"*/*/*"})
_FINISHED = frozenset({"trial_finished/*/*"})
_N = 300


def write_log(directory: Path) -> list[tuple[int, bytes, int, str, bytes]]:
    """Write a log of evaluations and, every tenth event, the end of a trial; return the events."""
    topics = [
        f"{'trial_finished' if i % 10 == 9 else 'evaluation_complete'}/s/{i // 10}"
        for i in range(_N)
    ]
    log = EventLog(directory)
    for first in range(0, _N, 50):
        log.append(
            Change(
                events=[
                    (b"p" * 16, i + 1, topics[i], msgspec.Raw(b"\x92\x01" + bytes([i % 100])))
                    for i in range(first, first + 50)
                ]
            )
        )
    records = log.read(0, _ALL, max_events=_N, max_bytes=1 << 20)[0]
    log.close()
    return [fields(record) for record in records]


def fields(record: Record) -> tuple[int, bytes, int, str, bytes]:
    return record.offset, record.publisher, record.seq, record.topic, bytes(record.body)


def read_log(directory: Path, patterns: frozenset[str]) -> tuple[list[object], int]:
    """Return all matching events of a log on disk, and the number of damaged events."""
    log = EventLog(directory)
    events: list[object] = []
    offset = 0
    while offset < log.end:
        records, following = log.read(offset, patterns, max_events=_N, max_bytes=1 << 20)
        assert following > offset
        events += map(fields, records)
        offset = following
    damaged = log.damaged
    log.close()
    return events, damaged


@pytest.mark.parametrize(
    "change",
    [
        "body = x'920103'",
        "topic = 'trial_finished/other/0'",
        "seq = seq + 1",
        "publisher = x'00'",
        "topic = CAST(x'FF2F2F' AS TEXT)",
        "body = 7",
        "checksum = checksum + 1",
    ],
)
def test_an_altered_event_is_passed_over_and_counted(tmp_path: Path, change: str) -> None:
    events = write_log(tmp_path)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as db:
        db.execute(f"UPDATE event SET {change} WHERE offset = 120")
    assert read_log(tmp_path, _ALL) == (events[:120] + events[121:], 1)


def test_vanished_events_are_counted_and_removed_ones_are_not(tmp_path: Path) -> None:
    events = write_log(tmp_path)
    log = EventLog(tmp_path)
    log.append(
        Change(
            events=[
                (b"q" * 16, 1, "study_submitted/t/", msgspec.Raw(b"\xc0")),
                (b"q" * 16, 2, "study_finished/t/", msgspec.Raw(b"\xc0")),
            ]
        )
    )
    assert log.forget("t", _N, _N + 1, last=False) == 1
    assert log.forget("t", _N + 1, _N + 2, last=True) == 1
    log.close()
    assert read_log(tmp_path, _ALL) == (events, 0)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as db:
        assert db.execute("SELECT first, stop, reason FROM gap").fetchall() == [
            (_N, _N + 2, "removed")
        ]
        db.execute("DELETE FROM event WHERE offset IN (50, 51, 70)")
    assert read_log(tmp_path, _ALL)[1] == 3


def test_an_event_that_its_altered_topic_hides_from_the_index_is_counted(tmp_path: Path) -> None:
    events = write_log(tmp_path)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as db:
        db.execute("UPDATE event SET topic = 'evaluation_complete/s/1' WHERE offset = 19")
    read, damaged = read_log(tmp_path, _FINISHED)
    assert (read, damaged) == ([e for e in events if e[0] % 10 == 9 and e[0] != 19], 1)


@pytest.mark.parametrize("format_", ["2", "3"])
def test_a_log_of_an_older_format_is_migrated(tmp_path: Path, format_: str) -> None:
    events = write_log(tmp_path)
    make_older(tmp_path / "events.db", format_)
    kept = events[:30] + events[40:]
    assert read_log(tmp_path, _ALL) == (kept, 0)
    assert read_log(tmp_path, _FINISHED) == ([e for e in kept if e[0] % 10 == 9], 0)


def make_older(path: Path, format_: str) -> None:
    """Convert a log to an older format, and remove the events 30 to 39."""
    path.with_suffix(".end").unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        if format_ == "2":
            for column in ("previous", "rare", "checksum"):
                db.execute(f"ALTER TABLE event DROP COLUMN {column}")
        else:
            db.execute("CREATE TABLE removed (stop INTEGER PRIMARY KEY, first INTEGER NOT NULL)")
            db.execute("INSERT INTO removed VALUES (40, 30)")
        db.execute("DELETE FROM event WHERE offset BETWEEN 30 AND 39")
        for table in TABLES:
            db.execute(f"ALTER TABLE {table.name} DROP COLUMN checksum")
        db.execute("DROP TABLE gap")
        db.execute("DELETE FROM meta WHERE key = 'digest'")
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (format_,))


def read_flipped_logs(directory: Path, seed: int) -> tuple[int, int, int]:
    """Flip a bit of a log in each of many copies; return how many were silent, noticed, refused."""
    events = write_log(directory)
    by_pattern = {
        patterns: [e for e in events if not patterns.isdisjoint(list_matching_patterns(e[3]))]
        for patterns in (_ALL, _FINISHED)
    }
    path = directory / "events.db"
    image = path.read_bytes()
    chance = random.Random(seed)
    silent = noticed = refused = 0
    for _ in range(150):
        damaged, _ = flip_bit(image, chance)
        for file in directory.glob("events.*"):
            file.unlink()
        path.write_bytes(damaged)
        patterns = chance.choice([_ALL, _FINISHED])
        try:
            read, n_damaged = read_log(directory, patterns)
        except LogError:
            refused += 1
            continue
        noticed += n_damaged > 0
        silent += read != by_pattern[patterns] and not n_damaged
    return silent, noticed, refused


def test_no_flipped_bit_alters_or_hides_an_event_silently(tmp_path: Path) -> None:
    silent, noticed, _ = read_flipped_logs(tmp_path, seed=1)
    assert silent == 0
    assert noticed > 0


def test_without_checksums_flipped_bits_are_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_intact(*_: object) -> int:
        return 0

    monkeypatch.setattr(integrity, "checksum", is_intact)
    assert read_flipped_logs(tmp_path, seed=1)[0] > 0
