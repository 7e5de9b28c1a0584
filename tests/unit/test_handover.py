"""What the processes of a training leave to their worker, and to others once it is dead."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.rings import use_ring_directory
from support.until import until
from trialbus import Link, Stop
from trialbus.client.handover import Handover, note_signal
from trialbus.client.private_files import unlock
from trialbus.client.publisher import Publisher
from trialbus.client.ring_directory import (
    GROUP_VARIABLE,
    create_ring,
    list_groups,
    list_rings,
    lock_directory,
    remove_group,
)
from trialbus.client.shared_ring import SharedRing
from trialbus.messages import codec
from trialbus.testing import TestBus

NAME = "0123abcd"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_ring_directory(tmp_path, monkeypatch)


def leave_events(endpoint: str, count: int, publisher: bytes = b"p" * 16, name: str = NAME) -> None:
    """Leave events in a ring, like a process of a training that was killed."""
    write_events(endpoint, count, publisher, name).close()


def write_events(endpoint: str, count: int, publisher: bytes, name: str) -> SharedRing:
    """Write events to a ring, like a process of a training that lives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GROUP_VARIABLE, name)
        ring = create_ring(endpoint, publisher)
    assert ring is not None
    for seq in range(1, count + 1):
        event = Stop(study="s", reason=str(seq))
        ring.append(seq, event.topic.encode(), codec.encode(event))
    return ring


def read_reasons(bus: TestBus) -> list[str]:
    return [event.reason for event in bus.events(Stop)]


def test_what_a_training_left_is_sent_by_its_worker_and_nobody_else() -> None:
    with TestBus() as bus, Link(bus.endpoint) as link, Publisher(bus.endpoint) as other:
        handover = Handover(link, NAME)
        assert handover.send_left()
        leave_events(bus.endpoint, 3)
        leave_events(bus.endpoint, 2, b"q" * 16)
        other.publish(Stop(study="s", reason="other"))
        other.flush()
        assert len(list_rings(bus.endpoint, NAME)) == 2
        until(handover.send_left)
        assert sorted(read_reasons(bus)) == ["1", "1", "2", "2", "3", "other"]
        assert handover.n_left == 0
        handover.close()
        until(lambda: list_groups(bus.endpoint) == [])  # another adopter may look right now


def test_a_ring_of_a_process_that_is_about_to_end_is_waited_for() -> None:
    with TestBus() as bus, Link(bus.endpoint) as link:
        handover = Handover(link, NAME)
        leave_events(bus.endpoint, 2)
        dying = write_events(bus.endpoint, 3, b"q" * 16, NAME)
        assert not handover.send_left()
        until(lambda: len(read_reasons(bus)) == 2)
        assert not handover.send_left()
        dying.close()  # as the kernel does
        until(handover.send_left)
        assert sorted(read_reasons(bus)) == ["1", "1", "2", "2", "3"]
        handover.close()


def test_a_ring_of_a_process_that_lives_on_is_left_after_a_while() -> None:
    with TestBus() as bus, Link(bus.endpoint) as link:
        handover = Handover(link, NAME)
        living = write_events(bus.endpoint, 3, b"q" * 16, NAME)
        until(handover.send_left, 20)
        assert read_reasons(bus) == []
        assert len(list_rings(bus.endpoint, NAME)) == 1
        handover.close()
        living.close()


def test_without_a_hub_the_worker_has_not_sent_what_is_left(tmp_path: Path) -> None:
    with Link(f"ipc://{tmp_path}/hub.sock") as link:
        handover = Handover(link, NAME)
        leave_events(link.endpoint, 3)
        assert not handover.send_left()
        handover.close()
        assert len(list_rings(link.endpoint, NAME)) == 1


def test_once_the_worker_is_dead_any_publisher_sends_what_its_trainings_left() -> None:
    with TestBus() as bus:
        with Link(bus.endpoint) as link:
            handover = Handover(link, NAME)
            leave_events(bus.endpoint, 3)
            lock = handover._lock  # pyright: ignore[reportPrivateUsage]
            assert lock is not None
            unlock(lock)  # as the kernel does for a killed worker
        with Publisher(bus.endpoint):
            until(lambda: read_reasons(bus) == ["1", "2", "3"])
            until(lambda: list_groups(bus.endpoint) == [])


def test_a_worker_sees_that_a_training_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROUP_VARIABLE, NAME)
    with TestBus() as bus, Link(bus.endpoint) as link:
        handover = Handover(link, NAME)
        assert handover.read_progress() == {}
        with Publisher(bus.endpoint) as publisher:
            before = handover.read_progress()
            publisher.publish(Stop(study="s"))
            assert handover.read_progress() != before
            publisher.publish(Stop(study="s"))
            assert list(handover.read_progress().values()) == [2]
        handover.close()


def test_a_signal_is_noted_for_the_worker_of_the_attempt_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Link(f"ipc://{tmp_path}/hub.sock") as link:
        handover = Handover(link, NAME)
        assert not note_signal(link.endpoint, NAME)
        monkeypatch.setenv(GROUP_VARIABLE, NAME)
        assert not note_signal(link.endpoint, "4567")
        assert not note_signal(link.endpoint, "")
        assert not handover.is_signalled
        assert note_signal(link.endpoint, NAME)
        assert handover.is_signalled
        handover.close()
        assert list_groups(link.endpoint) == []


@pytest.mark.parametrize("name", ["../../etc", "ABC", "a/b", "", "a" * 65])
def test_a_name_that_no_worker_gives_is_ignored(directory: Path, name: str) -> None:
    leave_events("ipc:///test-handover", 1, name=name)
    assert len(list(directory.glob("*.ring"))) == 1


def test_no_adopter_takes_the_folder_of_a_training_that_its_worker_is_about_to_start(
    tmp_path: Path,
) -> None:
    with Link(f"ipc://{tmp_path}/hub.sock") as link, ThreadPoolExecutor(1) as pool:
        is_over = threading.Event()

        def adopt_all() -> None:
            while not is_over.is_set():
                for group in list_groups(link.endpoint):
                    lock = lock_directory(link.endpoint, group)
                    if lock is not None:
                        remove_group(link.endpoint, group)
                        unlock(lock)

        adopter = pool.submit(adopt_all)
        handovers = [Handover(link, f"{number:x}") for number in range(1000)]
        try:
            assert all(handover.environment for handover in handovers)
        finally:
            is_over.set()
        adopter.result()
        for handover in handovers:
            handover.close()
