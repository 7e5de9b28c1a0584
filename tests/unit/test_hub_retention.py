"""Events of finished studies go by age or on demand, a slice at a time, never unread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from trialbus.hub.log import Change, EventLog
from trialbus.hub.retention import Retention

_KEEP_S = 3600.0


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path, sync="normal")
    yield log
    log.close()


def run_study(log: EventLog, study: str, n_events: int = 10, *, is_finished: bool = True) -> None:
    """Append a study's events to the log."""
    topics = [f"study_submitted/{study}/", *[f"evaluation_complete/{study}/0"] * n_events]
    topics += [f"study_finished/{study}/"] if is_finished else []
    first = log.publishers.get(b"p", 0) + 1
    events = [(b"p", first + i, topic, msgspec.Raw(b"\x80")) for i, topic in enumerate(topics)]
    log.append(Change(events=events, publishers={b"p": first + len(topics) - 1}))


def count(log: EventLog, study: str) -> int:
    pattern = frozenset({f"*/{study}/*"})
    return len(log.read(0, pattern, max_events=100_000, max_bytes=1 << 30, max_scan=1 << 20)[0])


def test_a_finished_study_goes_when_it_is_old_enough(log: EventLog) -> None:
    run_study(log, "old")
    run_study(log, "runs", is_finished=False)
    clock, wall_clock = Clock(0.0), Clock(log.studies["old"].finished_at + _KEEP_S - 1)
    retention = Retention(log, _KEEP_S, clock, wall_clock)
    retention.work()
    assert count(log, "old") == 12
    wall_clock.now += 2
    clock.now = retention.due
    retention.work()
    assert count(log, "old") == 0
    assert count(log, "runs") == 11
    assert retention.removed == 12
    assert retention.removing == []


def test_a_durable_name_that_has_not_read_the_study_holds_it_back(log: EventLog) -> None:
    run_study(log, "s")
    log.append(Change(committed={"slow": 5, "quick": log.end}))
    clock, wall_clock = Clock(0.0), Clock(log.studies["s"].finished_at + _KEEP_S + 1)
    retention = Retention(log, _KEEP_S, clock, wall_clock)
    retention.work()
    assert retention.held_back == {"s": ["slow"]}
    assert retention.forget("s") == (
        "not read yet by slow; wait until they have read them, or forget them too"
    )
    log.append(Change(committed={"slow": log.end}))
    clock.now = retention.due + 3600
    retention.work()
    assert count(log, "s") == 0
    assert retention.held_back == {}


def test_what_is_forced_goes_unread(log: EventLog) -> None:
    run_study(log, "s")
    log.append(Change(committed={"slow": 0}))
    retention = Retention(log, None, Clock(0.0))
    assert retention.due == float("inf")
    assert retention.forget("s", force=True) is None
    retention.work()
    assert count(log, "s") == 0


def test_a_study_that_runs_or_is_unknown_is_refused(log: EventLog) -> None:
    run_study(log, "s", is_finished=False)
    retention = Retention(log, None, Clock(0.0))
    assert retention.forget("s") == "study 's' has not finished; stop it first"
    assert retention.forget("t") == "the log has no events of a study 't'"


def test_a_large_study_goes_in_slices_with_pauses_between_them(log: EventLog) -> None:
    run_study(log, "s", 20_000)
    clock = Clock(0.0)
    retention = Retention(log, None, clock)
    assert retention.forget("s") is None
    remaining = [count(log, "s")]
    while retention.removing:
        assert retention.due >= clock.now
        clock.now = retention.due
        retention.work()
        remaining.append(count(log, "s"))
    assert remaining[-1] == 0
    assert len(remaining) > 3
    assert remaining == sorted(remaining, reverse=True)


def test_a_study_that_is_submitted_again_meanwhile_stays(log: EventLog) -> None:
    run_study(log, "s", 20_000)
    clock = Clock(0.0)
    retention = Retention(log, None, clock)
    retention.forget("s")
    retention.work()
    run_study(log, "s", is_finished=False)
    remaining = count(log, "s")
    clock.now = retention.due
    retention.work()
    assert retention.removing == []
    assert count(log, "s") == remaining


def test_a_slice_that_cannot_be_removed_is_tried_again_after_seconds(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(100.0)
    retention = Retention(log, clock=clock)
    run_study(log, "a")
    assert retention.forget("a") is None

    def fail(*_: object, **__: object) -> int:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(log, "forget", fail)
        with pytest.raises(sqlite3.DatabaseError):
            retention.work()
    assert retention.due == 105.0
    clock.now = 105.0
    retention.work()
    assert retention.removing == []
