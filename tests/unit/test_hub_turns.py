"""What a turn of the hub could not write is written later, or sent again by its client.

The hub has a socket in memory; a test moves its clock and lets its disk fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulation.disk import Disk
from simulation.world import World
from support.queued_socket import QueuedSocket
from trialbus.hub.hub import Hub
from trialbus.protocol import frames, limits


class HubOnFailingDisk:
    """A hub whose turns a test takes."""

    def __init__(self, directory: Path) -> None:
        self.world = World(seed=0)
        self.disk = Disk(self.world)
        self._directory = directory
        self.start()

    def start(self) -> None:
        self.socket = QueuedSocket()
        self.hub = Hub(
            "ipc:///simulated/hub.sock",
            self._directory,
            open_socket=lambda endpoint, gatekeeper: self.socket,
            connect=self.disk.connect,
            clock=self.world.clock,
            wall_clock=self.world.wall_clock,
        )

    def turn(self, *messages: frames.ToHub, after_s: float = 0.0) -> list[Any]:
        """Take a turn in which messages arrive, and return the answers."""
        self.world.now += after_s
        self.socket.queue.extend((b"peer", [frames.encode(message)]) for message in messages)
        self.hub.turn()
        answers = [frames.decode_to_client(frame) for _, frame in self.socket.sent]
        self.socket.sent.clear()
        return answers

    def let_expire(self, ttl_s: float) -> None:
        """Take turns, as the hub does, until a session has been silent for its time-to-live."""
        for _ in range(int(ttl_s / 0.25) + 2):
            self.turn(after_s=0.25)

    def read_topics(self) -> list[str]:
        records, _ = self.hub.log.read(0, frozenset({"*/*/*"}), max_events=100, max_bytes=10_000)
        return [record.topic for record in records]


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[HubOnFailingDisk]:
    bus = HubOnFailingDisk(tmp_path)
    yield bus
    bus.hub.close()


def hello(ttl_ms: int = 1000) -> frames.Hello:
    return frames.Hello("session", "worker", "w", ttl_ms)


def test_the_loss_of_a_session_is_told_when_the_disk_works_again(bus: HubOnFailingDisk) -> None:
    bus.turn(hello())
    bus.disk.fails_until = bus.world.now + 60
    bus.let_expire(ttl_s=1)
    assert bus.read_topics() == []
    assert bus.hub.due < float("inf"), "the hub would sleep until a message arrives"
    bus.disk.fails_until = 0.0
    bus.turn(after_s=0.25)
    bus.turn(after_s=0.25)
    assert bus.read_topics() == ["trainer_lost//"]
    bus.hub.close()
    bus.start()
    assert bus.hub.status().sessions == []


def test_an_orderly_end_that_could_not_be_written_is_written_later(bus: HubOnFailingDisk) -> None:
    bus.turn(hello())
    bus.disk.fails_until = bus.world.now + 60
    bus.turn(frames.Bye("session"))
    bus.disk.fails_until = 0.0
    bus.turn(after_s=0.25)
    bus.hub.close()
    bus.start()
    assert bus.hub.status().sessions == []


def test_a_commit_that_could_not_be_written_is_refused(bus: HubOnFailingDisk) -> None:
    bus.disk.n_failing = 1
    (answer,) = bus.turn(frames.Commit("name", 0))
    assert (answer.code, answer.about) == (frames.NO_SPACE, "name")
    assert bus.turn(frames.Commit("name", 0)) == [frames.Committed("name", 0)]


def test_a_lost_session_stays_lost_after_a_restart_of_the_hub(bus: HubOnFailingDisk) -> None:
    bus.turn(hello())
    bus.let_expire(ttl_s=1)
    assert bus.read_topics() == ["trainer_lost//"]
    bus.hub.close()
    bus.start()
    (answer,) = bus.turn(hello())
    assert answer.code == frames.SESSION_LOST
    assert bus.hub.status().sessions == []


def publish(first: int, count: int, base: int = 1, acknowledged: int = 0) -> frames.Publish:
    body = msgspec.Raw(b"\x80")
    return frames.Publish(b"p" * 16, first, [("x_a//", body)] * count, base, acknowledged)


def test_a_publisher_that_misses_acknowledged_events_makes_the_hub_skip_offsets_once(
    bus: HubOnFailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    bus.turn(publish(1, 3))
    assert bus.hub.log.end == 3
    for first in (11, 12, 13):
        (ack,) = bus.turn(publish(first, 1, base=11, acknowledged=10))
        assert ack.last == first
    assert bus.hub.log.end == 3 + (1 << 20) + 3
    assert bus.hub.log.lost == 0  # nobody knows which offsets the events had
    assert bus.hub.status().counters["lost"] == 7
    assert caplog.text.count("lacks 7 acknowledged events") == 1


def test_events_that_a_publisher_dropped_are_no_lost_tail(
    bus: HubOnFailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    bus.turn(publish(1, 3))
    bus.turn(publish(6, 1, base=6, acknowledged=3))
    assert (bus.hub.log.end, bus.hub.status().counters["lost"]) == (4, 2)
    bus.turn(frames.Publish(b"q" * 16, 100, [("x_a//", msgspec.Raw(b"\x80"))], 100))
    assert (bus.hub.log.end, bus.hub.status().counters["lost"]) == (5, 2)
    assert caplog.text == ""


def test_the_losses_that_strangers_claim_are_logged_a_bounded_number_of_times(
    bus: HubOnFailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(3000):
        publisher = i.to_bytes(16, "big")
        events = [("x_a//", msgspec.Raw(b"\x80"))]
        bus.turn(frames.Publish(publisher, 1 << 61, events, 1 << 61, (1 << 61) - 1))
    assert caplog.text.count("lacks") == 1000
    assert bus.hub.log.end == (1 << 20) + 3000


def test_no_claim_of_lost_events_lets_the_counter_grow_beyond_what_a_frame_holds(
    bus: HubOnFailingDisk,
) -> None:
    far = (1 << 62) - 1
    body = msgspec.Raw(b"\x80")
    for i in range(5):
        secret = bytes([i]) * 16
        bus.turn(frames.Publish(secret, 1, [("x_a//", body)]))
        bus.turn(frames.Publish(secret, far, [("x_a//", body)], far))
    (status,) = bus.turn(frames.AskStatus(1))
    assert status.status.counters["lost"] == far


def test_sequence_numbers_beyond_what_a_frame_holds_are_refused(bus: HubOnFailingDisk) -> None:
    event = ("x_a/s/", msgspec.Raw(b"\x80"))
    first = limits.MAX_NUMBER
    publish = frames.Publish(b"p", first, [event, event], base=first)
    refused = next(a for a in bus.turn(publish) if isinstance(a, frames.Refused))
    assert (refused.code, refused.about) == (frames.BAD_FRAME, b"p".hex())
    assert str(limits.MAX_NUMBER) in refused.reason
    assert bus.read_topics() == []


def test_a_connection_that_cannot_take_all_acknowledgements_gets_the_others_later(
    bus: HubOnFailingDisk,
) -> None:
    event = ("x_a/s/", msgspec.Raw(b"\x80"))
    publishers = [b"%d" % i for i in range(1000)]
    bus.socket.room = 64
    answers = bus.turn(*(frames.Publish(publisher, 1, [event]) for publisher in publishers))
    while (bus.hub.due - bus.world.now) < 0.1:
        bus.socket.room = 64
        answers += bus.turn(after_s=max(0.0, bus.hub.due - bus.world.now))
    assert sorted(answer.publisher for answer in answers) == sorted(publishers)


def test_acknowledgements_for_a_connection_that_reads_nothing_are_given_up(
    bus: HubOnFailingDisk,
) -> None:
    bus.socket.room = 0
    event = ("x_a/s/", msgspec.Raw(b"\x80"))
    bus.turn(*(frames.Publish(b"%d" % i, 1, [event]) for i in range(10)))
    assert bus.hub.due < bus.world.now + 0.1
    bus.turn(after_s=0.5)
    bus.turn(after_s=0.6)
    bus.turn(after_s=0.1)
    assert bus.hub.due == float("inf")
