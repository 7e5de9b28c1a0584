"""The log numbers events without gaps, never twice, and commits related changes together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from trialbus.errors import LogError, LogInUseError
from trialbus.hub.log import Change, EventLog
from trialbus.messages import codec
from trialbus.messages.events import TrainerLost
from trialbus.protocol.frames import Hello

EVERYTHING = frozenset({"*/*/*"})
_ME = b"publisher"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path, sync="normal")
    yield log
    log.close()


def change(*topics: str, first: int = 1) -> Change:
    """Return a change with an event for each topic, numbered by the publisher from `first` on."""
    body = msgspec.Raw(b"\x80")
    events = [(_ME, first + i, topic, body) for i, topic in enumerate(topics)]
    return Change(events=events, publishers={_ME: first + len(topics) - 1})


def read_topics(log: EventLog, offset: int = 0, *patterns: str) -> list[tuple[int, str]]:
    wanted = frozenset(patterns) or EVERYTHING
    records, _ = log.read(offset, wanted, max_events=1000, max_bytes=1 << 20)
    return [(record.offset, record.topic) for record in records]


def reopen(log: EventLog) -> EventLog:
    log.close()
    return EventLog(log.path.parent, sync="normal")


def test_offsets_count_up_without_gaps_also_after_the_log_was_opened_again(log: EventLog) -> None:
    assert [r.offset for r in log.append(change("stop/s/", "stop/t/"))] == [0, 1]
    again = reopen(log)
    assert again.end == 2
    assert [r.offset for r in again.append(change("stop/u/", first=3))] == [2]
    assert read_topics(again) == [(0, "stop/s/"), (1, "stop/t/"), (2, "stop/u/")]
    again.close()


def test_what_one_turn_brings_is_kept_together_or_not_at_all(log: EventLog, tmp_path: Path) -> None:
    log.append(change("stop/s/"))
    other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
    other.execute("CREATE TRIGGER no BEFORE INSERT ON session BEGIN SELECT RAISE(FAIL, 'no'); END")
    failing = change("stop/t/", first=2)
    failing.committed["name"] = 1
    failing.sessions["a"] = Hello("a", "trainer", "", 1000)
    with pytest.raises(sqlite3.Error, match="no"):
        log.append(failing)
    other.execute("DROP TRIGGER no")
    other.close()
    assert (log.end, log.publishers, log.durable, log.sessions) == (1, {_ME: 1}, {}, {})
    again = reopen(log)
    assert (again.end, again.publishers, again.durable, again.sessions) == (1, {_ME: 1}, {}, {})
    assert [record.offset for record in again.append(failing)] == [1]
    assert again.durable == {"name": 1}
    again.close()


def test_reading_from_memory_and_from_the_file_gives_the_same(log: EventLog) -> None:
    topics = [f"evaluation_complete/s/{i % 7}" if i % 3 else f"prune/s/{i % 7}" for i in range(300)]
    log.append(change(*topics))
    patterns = (("*/*/*",), ("prune/*/*",), ("*/s/3",), ("prune/s/3", "evaluation_complete/s/5"))
    cached = [read_topics(log, start, *wanted) for wanted in patterns for start in (0, 150, 299)]
    again = reopen(log)
    assert [
        read_topics(again, start, *wanted) for wanted in patterns for start in (0, 150, 299)
    ] == cached
    again.close()


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_reading_is_bounded_and_says_where_to_go_on(log: EventLog, is_cached: bool) -> None:
    log.append(change(*(f"evaluation_complete/s/{i % 2}" for i in range(100))))
    reader = log if is_cached else reopen(log)
    records, following = reader.read(0, frozenset({"*/*/1"}), max_events=10, max_bytes=1 << 20)
    assert [record.offset for record in records] == list(range(1, 21, 2))
    assert following == 21
    records, following = reader.read(
        following, frozenset({"*/*/1"}), max_events=1000, max_bytes=1 << 20, max_scan=30
    )
    assert following == 51
    assert [record.offset for record in records] == list(range(21, 51, 2))
    reader.close()


def test_durable_names_and_sessions_survive_and_can_be_forgotten(log: EventLog) -> None:
    hello = Hello("a", "trainer", "", 1000, study="s")
    log.append(Change(committed={"x": 5, "y": 7}, sessions={"a": hello}))
    log.append(Change(committed={"y": None}))
    again = reopen(log)
    assert again.durable == {"x": 5}
    assert again.sessions == {"a": hello}
    again.append(Change(sessions={"a": None}))
    last = reopen(again)
    assert last.sessions == {}
    last.close()


def test_removed_events_leave_the_others_and_their_offsets_are_not_given_again(
    log: EventLog,
) -> None:
    log.append(change("study_submitted/s/", "stop/t/", "trial_assigned/s/0", "study_finished/s/"))
    assert log.studies["s"].finished == 3
    assert log.forget("s", 0, 4, last=True) == 2
    assert log.studies == {}
    again = reopen(log)
    assert read_topics(again) == [(1, "stop/t/"), (2, "trial_assigned/s/0")]
    assert again.end == 4
    assert [record.offset for record in again.append(change("stop/u/", first=5))] == [4]
    again.close()


def test_a_log_belongs_to_one_hub_at_a_time(log: EventLog, tmp_path: Path) -> None:
    with pytest.raises(LogInUseError, match="in use by another hub"):
        EventLog(tmp_path)
    log.close()
    EventLog(tmp_path).close()


def test_a_file_that_is_no_log_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(LogError, match="cannot be read as an event log"):
        EventLog(tmp_path)
    assert path.read_bytes() == b"something else" * 100


_LOST = b"\x82\xa4type\xactrainer_lost\xa7session"


@pytest.mark.parametrize(
    "body",
    [_LOST + b"\xa1\xff", _LOST + b"\x01", _LOST + b"\x91" * 90 + b"\xc0", b"\x80", b"\xc0"],
    ids=["no UTF-8", "a number", "nested", "empty", "no map"],
)
def test_any_event_that_a_client_published_leaves_the_lost_sessions_readable(
    log: EventLog, body: bytes
) -> None:
    intact = msgspec.Raw(codec.encode(TrainerLost(study="s", session="a", kind="worker")))
    log.append(
        Change(
            events=[
                (_ME, seq, "trainer_lost//", event)
                for seq, event in enumerate([intact, msgspec.Raw(body), intact], 1)
            ]
        )
    )
    assert log.read_lost_sessions() == ["a", "a"]
