"""What is intact on a damaged disk comes back: behind damaged frames of the log, and in pages."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from support.damage import flip_bit
from trialbus.errors import LogError
from trialbus.hub.hub import Hub
from trialbus.hub.log import Change, EventLog
from trialbus.hub.log_check import check_log, read_watermark
from trialbus.hub.log_repair import repair_log
from trialbus.hub.wal import Wal
from trialbus.hub.watermark import Watermark

_N_EVENTS = 600
_PAGE = 4096
_FRAME = 24 + _PAGE
_ALL = frozenset({"*/*/*"})


def write_log(directory: Path) -> EventLog:
    """Write a log of many pages, some events with overflow pages, and leave the log open."""
    log = EventLog(directory, sync="normal")
    for first in range(1, _N_EVENTS, 10):
        events = [
            (
                b"p" * 16,
                seq,
                f"{'evaluation_complete' if seq % 5 else 'trial_started'}/s/{seq}",
                msgspec.Raw(msgspec.msgpack.encode("x" * (9000 if seq % 97 == 0 else seq % 300))),
            )
            for seq in range(first, first + 10)
        ]
        change = Change(events=events, publishers={b"p" * 16: first + 9})
        change.committed["reader"] = log.end
        log.append(change)
    return log


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a log whose hub was killed before SQLite copied a page into the database."""
    folder = tmp_path_factory.mktemp("crashed")
    with closing(write_log(folder / "log")):
        shutil.copytree(folder / "log", folder / "image")
    return folder / "image"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a log whose hub was stopped."""
    folder = tmp_path_factory.mktemp("closed") / "log"
    write_log(folder).close()
    return folder


def read_offsets(log: EventLog) -> list[int]:
    offsets: list[int] = []
    position = 0
    while position < log.end:
        records, position = log.read(position, _ALL, max_events=1000, max_bytes=1 << 30)
        offsets += [record.offset for record in records]
    return offsets


def copy_damaged(image: Path, to: Path, name: str, damage: Callable[[bytes], bytes]) -> Path:
    shutil.copytree(image, to)
    (to / name).write_bytes(damage((to / name).read_bytes()))
    return to


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_in_the_write_ahead_log_loses_nothing(
    tmp_path: Path, crashed: Path, seed: int
) -> None:
    def flip(content: bytes) -> bytes:
        return flip_bit(content, random.Random(seed))[0]

    folder = copy_damaged(crashed, tmp_path / "log", "events.db-wal", flip)
    with closing(EventLog(folder)) as log:
        offsets = read_offsets(log)
        assert (log.end, log.publishers, log.durable) == (
            _N_EVENTS,
            {b"p" * 16: _N_EVENTS},
            {"reader": _N_EVENTS - 10},
        )
    # A frame of which the flipped bit cannot be told costs at most the event with the bit.
    assert len(offsets) >= _N_EVENTS - 1
    assert len(offsets) == _N_EVENTS or log.lost == 1


def test_frames_behind_a_destroyed_frame_are_read_and_what_is_gone_is_counted(
    tmp_path: Path, crashed: Path
) -> None:
    def destroy(content: bytes) -> bytes:
        start = 32 + _FRAME * (len(content) // _FRAME // 2)
        return content[:start] + bytes(_FRAME) + content[start + _FRAME :]

    folder = copy_damaged(crashed, tmp_path / "log", "events.db-wal", destroy)
    with closing(EventLog(folder)) as log:
        offsets = read_offsets(log)
        assert log.end == _N_EVENTS
        assert log.damaged > 0
        assert len(offsets) + log.lost == _N_EVENTS
        assert log.lost < 30  # events of a page
        assert len(list(folder.glob("damaged-*/events.db-wal"))) == 1
        log.append(Change(events=[(b"p" * 16, _N_EVENTS + 1, "x_a/s/", msgspec.Raw(b"\x80"))]))
    assert check_log(folder).is_intact


def test_a_log_check_of_a_stopped_hub_says_that_the_write_ahead_log_is_damaged(
    tmp_path: Path, crashed: Path
) -> None:
    def flip(content: bytes) -> bytes:
        return content[:20_000] + bytes([content[20_000] ^ 1]) + content[20_001:]

    folder = copy_damaged(crashed, tmp_path / "log", "events.db-wal", flip)
    assert any("events.db-wal is damaged" in problem for problem in check_log(folder).problems)
    report = repair_log(folder)
    assert report.backup is not None
    assert report.n_events == _N_EVENTS
    assert check_log(folder).is_intact


@pytest.mark.parametrize("page", range(8))
def test_a_page_that_cannot_be_read_costs_at_most_its_events_in_a_repair(
    tmp_path: Path, closed: Path, page: int
) -> None:
    def destroy(content: bytes) -> bytes:
        return content[: page * _PAGE] + b"\xff" * _PAGE + content[(page + 1) * _PAGE :]

    folder = copy_damaged(closed, tmp_path / "log", "events.db", destroy)
    report = repair_log(folder)
    assert report.n_events >= _N_EVENTS - 40
    with closing(EventLog(folder)) as log:
        offsets = read_offsets(log)
        assert len(offsets) + log.lost == log.end == _N_EVENTS
        assert log.publishers == {b"p" * 16: _N_EVENTS}


def test_a_file_without_its_last_page_keeps_all_other_events_in_a_repair(
    tmp_path: Path, closed: Path
) -> None:
    folder = copy_damaged(closed, tmp_path / "log", "events.db", lambda content: content[:-_PAGE])
    assert repair_log(folder).n_events >= _N_EVENTS - 40
    with closing(EventLog(folder)) as log:
        offsets = read_offsets(log)
        assert len(offsets) + log.lost == log.end == _N_EVENTS


def test_a_flipped_bit_in_the_cells_of_a_page_costs_one_event_in_a_repair(
    tmp_path: Path, closed: Path
) -> None:
    chance = random.Random(1)
    for i in range(20):
        folder = copy_damaged(
            closed, tmp_path / f"log{i}", "events.db", lambda b: flip_bit(b, chance)[0]
        )
        report = repair_log(folder)
        assert report.n_events >= _N_EVENTS - 1


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "gone"])
@pytest.mark.parametrize("is_repaired", [True, False], ids=["repair", "hub"])
def test_a_database_that_is_gone_or_empty_costs_nothing_that_is_in_its_write_ahead_log(
    tmp_path: Path, crashed: Path, is_repaired: bool, is_there: bool
) -> None:
    folder = copy_damaged(crashed, tmp_path / "log", "events.db", lambda content: b"")
    if not is_there:
        (folder / "events.db").unlink()
    assert "is gone or empty" in check_log(folder).problems[0]
    if is_repaired:
        assert repair_log(folder).n_events == _N_EVENTS
    with closing(EventLog(folder)) as log:
        assert (log.end, log.lost) == (_N_EVENTS, 0)
        assert read_offsets(log) == list(range(_N_EVENTS))


def test_an_older_write_ahead_log_hides_no_event_of_the_database(tmp_path: Path) -> None:
    older = b""
    with closing(EventLog(tmp_path / "log")) as log:
        for seq in range(1, 4):
            event = (b"p" * 16, seq, "x_a/s/", msgspec.Raw(b"\x80"))
            log.append(Change(events=[event], publishers={b"p" * 16: seq}))
            if seq == 1:
                older = (tmp_path / "log" / "events.db-wal").read_bytes()
    assert not (tmp_path / "log" / "events.db-wal").exists()
    (tmp_path / "log" / "events.db-wal").write_bytes(older)
    with closing(EventLog(tmp_path / "log")) as log:
        assert read_offsets(log) == [0, 1, 2]
        assert log.damaged > 0


@pytest.mark.parametrize("end", ["missing", "damaged", "older"])
def test_damage_of_the_write_ahead_log_is_noticed_without_a_present_events_end(
    tmp_path: Path, crashed: Path, end: str
) -> None:
    def destroy(content: bytes) -> bytes:
        start = 32 + _FRAME * (len(content) // _FRAME // 2)
        return content[:start] + bytes(_FRAME) + content[start + _FRAME :]

    folder = copy_damaged(crashed, tmp_path / "log", "events.db-wal", destroy)
    mark = read_watermark(folder / "events.db")
    assert mark is not None
    (folder / "events.end").unlink()
    if end == "damaged":
        (folder / "events.end").write_bytes(b"\xff" * 1024)
    elif end == "older":
        with closing(Watermark(folder / "events.end")) as watermark:
            watermark.write(mark._replace(end=20, n_commits=3))
    with closing(EventLog(folder)) as log:
        assert len(read_offsets(log)) + log.lost == log.end == _N_EVENTS
        assert log.damaged > 0
        assert log.lost < 30  # events of a page


def test_the_torn_end_of_the_last_transaction_is_no_damage_without_events_end(
    tmp_path: Path, crashed: Path
) -> None:
    folder = copy_damaged(
        crashed, tmp_path / "log", "events.db-wal", lambda content: content[:-2000] + bytes(2000)
    )
    (folder / "events.end").unlink()
    with closing(EventLog(folder)) as log:
        assert (log.end, log.damaged, log.lost) == (_N_EVENTS - 10, 0, 0)
    assert not list(folder.glob("damaged-*"))


@pytest.mark.parametrize("name", ["events.end", "events.lock"])
def test_a_folder_in_the_place_of_a_file_is_named_before_anything_changes(
    tmp_path: Path, closed: Path, name: str
) -> None:
    folder = copy_damaged(closed, tmp_path / "log", "events.db", lambda content: content[:-_PAGE])
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    for open_ in (EventLog, repair_log):
        with pytest.raises(LogError, match=name):
            open_(folder)
    assert not list(folder.glob("damaged-*"))


def kill_at_step(step: int, action: Callable[[], object]) -> bool:
    """Run an action in a process that dies at a change of files; return whether it came so far."""
    child = os.fork()
    if child == 0:
        n_steps = 0

        def die(_frame: object, event: str, function: object) -> None:
            nonlocal n_steps
            if event == "c_call" and function in _STEPS:
                n_steps += 1
                if n_steps == step:
                    os._exit(9)

        sys.setprofile(die)
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


_STEPS = {os.replace, os.unlink, os.mkdir, os.fsync}


def test_a_repair_that_is_killed_at_any_step_costs_no_event_that_is_intact(
    tmp_path: Path, crashed: Path
) -> None:
    def destroy(content: bytes) -> bytes:
        start = 32 + _FRAME * (len(content) // _FRAME // 2)
        return content[:start] + bytes(_FRAME) + content[start + _FRAME :]

    for step in itertools.count(1):
        name = "events.db-wal"
        folder = copy_damaged(crashed, tmp_path / f"log{step}", name, destroy)
        was_killed = kill_at_step(step, lambda folder=folder: repair_log(folder))
        with closing(EventLog(folder)) as log:
            assert len(read_offsets(log)) + log.lost == log.end == _N_EVENTS
            assert log.lost < 30  # events of a page
        assert check_log(folder).is_intact
        if not was_killed:
            assert step > 5
            break


def test_a_check_says_that_a_repair_was_interrupted(tmp_path: Path, closed: Path) -> None:
    folder = tmp_path / "log"
    shutil.copytree(closed, folder)
    shutil.move(folder / "events.db", folder / "events.replacement")
    assert any("events.replacement" in problem for problem in check_log(folder).problems)
    assert repair_log(folder).n_events == _N_EVENTS
    assert check_log(folder).is_intact


def test_events_that_retention_removed_do_not_come_back_in_a_repair(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with closing(EventLog(folder)) as log:
        topics = [
            "study_submitted/s/",
            *["evaluation_complete/s/1"] * 200,
            "study_finished/s/",
            *["evaluation_complete/t/1"] * 200,
        ]
        body = msgspec.Raw(msgspec.msgpack.encode("x" * 100))
        events = [(b"p" * 16, i + 1, topic, body) for i, topic in enumerate(topics)]
        log.append(Change(events=events, publishers={b"p" * 16: len(topics)}))
        log.forget("s", 0, 202, last=True)
    content = (folder / "events.db").read_bytes()
    (folder / "events.db").write_bytes(content[:-100])
    report = repair_log(folder)
    with closing(EventLog(folder)) as log:
        assert min(read_offsets(log)) >= 202
    assert report.n_events > 150


def test_what_a_body_has_of_a_page_is_no_event_of_a_repaired_log(tmp_path: Path) -> None:
    folder, forged = tmp_path / "log", tmp_path / "forged"
    with closing(EventLog(forged)) as log:
        event = (b"v" * 16, 1, "trial_finished/s/0", msgspec.Raw(b"\x80"))
        log.append(Change(events=[event] * 2, publishers={b"v" * 16: 1}))
    page = next(
        page
        for start in range(0, 1 << 20, _PAGE)
        if (page := (forged / "events.db").read_bytes()[start : start + _PAGE])[:1] == b"\x0d"
    )
    with closing(EventLog(folder)) as log:
        bodies = [b"\x80", msgspec.msgpack.encode(page), b"\x80", b"\x80"]
        events = [
            (b"p" * 16, i + 1, f"x_a/s/{i}", msgspec.Raw(body)) for i, body in enumerate(bodies)
        ]
        log.append(Change(events=events, publishers={b"p" * 16: 4}))
    damage = (folder / "events.db").read_bytes().replace(b"x_a/s/0", b"x_a/s/9")
    (folder / "events.db").write_bytes(damage)
    assert repair_log(folder).n_events == 3
    with closing(EventLog(folder)) as log:
        assert read_offsets(log) == [1, 2, 3]
        assert set(log.publishers) == {b"p" * 16}


def test_the_checksums_of_sqlite_s_frames_are_understood(crashed: Path) -> None:
    content = (crashed / "events.db-wal").read_bytes()
    wal = Wal(content, _PAGE)
    assert len(wal.frames) == (len(content) - 32) // _FRAME
    assert (wal.n_damaged, wal.n_corrected) == (0, 0)


def test_a_hub_serves_a_log_that_it_has_recovered(tmp_path: Path, crashed: Path) -> None:
    def destroy(content: bytes) -> bytes:
        return content[: _FRAME * 3] + b"\xff" * 5000 + content[_FRAME * 3 + 5000 :]

    folder = copy_damaged(crashed, tmp_path / "log", "events.db-wal", destroy)
    try:
        hub = Hub(f"ipc://{tmp_path}/hub.sock", folder)
    except LogError as error:
        pytest.fail(str(error))
    with closing(hub):
        assert hub.status().end == _N_EVENTS
        assert hub.status().damaged > 0
