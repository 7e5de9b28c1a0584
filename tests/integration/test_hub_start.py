"""A hub starts on an intact log and on no other file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import trialbus
from support.evaluations import list_logged_steps, make_evaluation, read_steps
from support.processes import Bus
from support.until import until
from support.zmtp import ZmtpPeer


def test_another_log_behind_the_endpoint_is_reported_and_not_mixed_up(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.subscribe(endpoint=bus.endpoint) as inbox,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        inbox.wait_ready()
        publisher.publish(make_evaluation(0))
        read_steps(inbox, 1)
        hub.kill()
        for file in (bus.directory / "log").iterdir():
            file.unlink()
        hub.start()
        with pytest.raises(trialbus.LogResetError):
            inbox.next(20)
        publisher.publish(make_evaluation(1))
        assert publisher.flush(20)


@pytest.mark.parametrize("kind", ["bus", "services"])
def test_more_clients_than_files_that_a_process_may_open_by_default_do_not_end_the_hub(
    bus: Bus, kind: str
) -> None:
    own = ["-m", "trialbus.hub", "--endpoint", bus.endpoint, "--dir", "log"]
    service = ["-m", "trialbus_services", "hub", f"bus.endpoint={bus.endpoint}", "bus.dir=log"]
    command = [sys.executable, *(own if kind == "bus" else service)]
    hub = bus.run("hub", ["bash", "-c", 'ulimit -S -n 64; exec "$@"', "_", *command])
    with trialbus.Publisher(bus.endpoint) as publisher, contextlib.ExitStack() as peers:
        publisher.publish(make_evaluation(0))
        assert publisher.flush(30)
        for _ in range(100):
            peers.enter_context(ZmtpPeer(bus.endpoint))
        publisher.publish(make_evaluation(1))
        assert publisher.flush(20)
    assert hub.running


def test_two_hubs_cannot_use_one_log(bus: Bus) -> None:
    hub = bus.hub()
    until(lambda: "serving at" in hub.printed())
    second = bus.run(
        "second", [*hub.command[:-3], f"ipc://{bus.directory}/other.sock", *hub.command[-2:]]
    )
    assert second.wait(20) == 1
    assert f"in use by another hub (process {hub.pid})" in second.printed()


def test_a_file_that_is_no_log_is_refused_and_left_as_it_was(bus: Bus) -> None:
    path = bus.directory / "log" / "events.db"
    path.parent.mkdir()
    path.write_bytes(b"something else" * 100)
    hub = bus.hub()
    assert hub.wait(20) == 1
    assert "cannot be read as an event log" in hub.printed()
    assert path.read_bytes() == b"something else" * 100


def test_a_log_of_another_format_is_refused(bus: Bus) -> None:
    hub = bus.hub()
    until(lambda: "serving at" in hub.printed())
    hub.stop()
    with sqlite3.connect(bus.directory / "log" / "events.db") as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    hub.start()
    assert hub.wait(20) == 1
    assert "has format '99'; this version reads '4'" in hub.printed()


def test_an_endpoint_that_strangers_can_reach_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "trialbus.hub",
        "--endpoint",
        "tcp://0.0.0.0:5999",
        "--dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "bus.insecure=true" in done.stderr


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_last_write_that_was_torn_costs_at_most_its_events_and_the_log_goes_on(
    bus: Bus, damage: str
) -> None:
    hub = bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(100):
            publisher.publish(make_evaluation(step))
            publisher.flush(10)
    hub.kill()
    wal = bus.directory / "log" / "events.db-wal"
    content = wal.read_bytes()
    torn = content[:-700] if damage == "truncated" else content[:-700] + os.urandom(700)
    wal.write_bytes(torn)
    hub.start()
    kept = list_logged_steps(bus)
    assert 0 < len(kept) <= 100
    assert kept == list(range(len(kept)))
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(make_evaluation(1000))
        assert publisher.flush(20)
    assert list_logged_steps(bus) == [*kept, 1000]
