"""What a turn of the hub could not write is written later, or sent again by its client.

The hub has a socket in memory; a test moves its clock and lets its disk fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.disk import Disk
from simulation.world import World
from support.queued_socket import QueuedSocket
from trialbus.hub.hub import Hub
from trialbus.protocol import frames


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
