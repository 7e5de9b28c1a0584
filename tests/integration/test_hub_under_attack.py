"""No peer ends the hub or keeps the hub from serving other peers."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import trialbus
from support.processes import Bus
from support.until import until
from support.zmtp import PING, ZmtpPeer, make_frame
from trialbus.protocol import frames

PUBLISH_WITHOUT_END = """
import itertools, sys, trialbus
with trialbus.Publisher(sys.argv[1]) as publisher:
    for step in itertools.count():
        publisher.publish(trialbus.EvaluationComplete(
            study="s", trial=0, attempt=0, step=step, metrics={"a": 1.0}, elapsed_s=0.0))
"""
FLOODS: dict[str, Callable[[int], bytes]] = {
    "ask_status": lambda i: frames.encode(frames.AskStatus(i)),
    "hello": lambda i: frames.encode(frames.Hello(f"s{i}", "trainer", "x", ttl_ms=1 << 30)),
    "commit": lambda i: frames.encode(frames.Commit(f"name{i}", 0)),
    "fetch": lambda i: frames.encode(frames.Fetch(i, 0, ["x_none/*/*"], wait_ms=60_000)),
    "noise": lambda _: b"\xc1" * 20,
}
HUB = [sys.executable, "-m", "trialbus.hub", "--endpoint"]
_MEMORY = 1 << 30


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(tmp_path)
    bus.hub()
    until((tmp_path / "hub.sock").exists, 10, "the hub")
    yield bus
    bus.stop()


def evaluation(step: int) -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(
        study="s", trial=1, attempt=0, step=step, metrics={"a": 1.0}, elapsed_s=0.0
    )


def logged_steps(bus: Bus) -> list[int]:
    events = [record.event for record in trialbus.replay(endpoint=bus.endpoint)]
    return [event.step for event in events if isinstance(event, trialbus.EvaluationComplete)]


def publish_in_turn(bus: Bus, count: int) -> None:
    """Publish events in turn, each after the acknowledgement of the last."""
    with trialbus.Publisher(bus.endpoint, ring_bytes=0) as publisher:
        for step in range(count):
            publisher.publish(evaluation(step))
            publisher.flush(20)


def test_a_peer_that_pings_behind_many_messages_and_leaves_does_not_end_the_hub(bus: Bus) -> None:
    messages = (make_frame(frames.encode(frames.AskStatus(1))) + PING) * 4000

    def attack() -> bool:
        with contextlib.suppress(OSError), ZmtpPeer(bus.endpoint) as peer:
            peer.send_some(messages)
            return True
        return False  # the hub just hung up on all of them

    for _ in range(30):
        until(attack, 20, "a connection")
    publish_in_turn(bus, 3)
    assert bus.processes["hub"].running


def test_publishers_killed_while_the_disk_stalls_do_not_end_the_hub(bus: Bus) -> None:
    command = [sys.executable, "-c", PUBLISH_WITHOUT_END, bus.endpoint]
    publishers = [bus.run(f"publisher{i}", command) for i in range(6)]
    log = sqlite3.connect(bus.directory / "log" / "events.db", isolation_level=None, timeout=30)
    until(
        lambda: log.execute("SELECT count(*) FROM publisher").fetchone()[0] == len(publishers),
        30,
        "an event of every publisher",
    )
    log.execute("BEGIN IMMEDIATE")
    for publisher in publishers:
        publisher.signal(signal.SIGKILL)
        publisher.wait(10)
    until(lambda: "cannot be written" in bus.processes["hub"].printed(), 30, "the stalled hub")
    log.execute("ROLLBACK")
    log.close()
    publish_in_turn(bus, 3)
    assert bus.processes["hub"].running


@pytest.mark.parametrize("kind", FLOODS)
def test_an_honest_client_is_heard_beside_a_flood(bus: Bus, kind: str) -> None:
    body = FLOODS[kind]
    chunk = b"".join(make_frame(body(i)) for i in range(1000))
    ended = threading.Event()

    def flood() -> None:
        while not ended.is_set():
            try:
                peer = ZmtpPeer(bus.endpoint)
            except OSError:
                continue
            try:
                while not ended.is_set():
                    peer.send(chunk)
            except OSError:
                pass  # the hub hung up
            finally:
                peer.close()

    flooders = [threading.Thread(target=flood) for _ in range(2)]
    for flooder in flooders:
        flooder.start()
    try:
        publish_in_turn(bus, 30)
        memory = psutil.Process(bus.processes["hub"].pid).memory_info().rss
    finally:
        ended.set()
        for flooder in flooders:
            flooder.join()
    assert memory < _MEMORY
    assert logged_steps(bus) == list(range(30))
    assert bus.processes["hub"].printed().count("refused") < 20


def test_what_arrives_while_the_disk_stalls_is_bounded_and_sent_again(bus: Bus) -> None:
    chunk = make_frame(bytes(1 << 16)) * 64
    log = sqlite3.connect(bus.directory / "log" / "events.db", isolation_level=None)
    log.execute("BEGIN IMMEDIATE")
    with trialbus.Publisher(bus.endpoint, ring_bytes=0) as publisher:
        publisher.publish(evaluation(0))  # the hub waits for the log to take it
        peer = ZmtpPeer(bus.endpoint)
        memory = 0
        hub = psutil.Process(bus.processes["hub"].pid)
        for _ in range(500):  # 2 GiB
            peer.send(chunk)
            memory = max(memory, hub.memory_info().rss)
        peer.close()
        log.execute("ROLLBACK")
        log.close()
        publisher.publish(evaluation(1))
        publisher.flush(30)
    assert memory < _MEMORY
    assert logged_steps(bus) == [0, 1]


def test_a_second_hub_does_not_take_the_socket_of_a_live_one(bus: Bus) -> None:
    first = bus.processes["hub"]
    other = bus.run("second", [*first.command[:-1], str(bus.directory / "other")])
    assert other.wait(20) == 1
    assert "another hub serves it" in other.printed()
    publish_in_turn(bus, 1)
    first.kill()  # its socket file stays, and is nobody's
    first.start()
    publish_in_turn(bus, 1)


def test_nobody_else_may_read_the_files_of_the_log(bus: Bus) -> None:
    publish_in_turn(bus, 1)
    folder = bus.directory / "log"
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.glob("events.*")}
    assert set(modes.values()) == {"0o600"}, modes


def test_a_folder_that_cannot_hold_the_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bus = Bus(tmp_path)
    hub = bus.run("hub", [*HUB, bus.endpoint, "--dir", str(tmp_path / "file" / "log")])
    assert hub.wait(20) == 1
    assert "cannot hold the log: " in hub.printed()
    assert "Traceback" not in hub.printed()
