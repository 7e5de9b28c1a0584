"""A ring in shared memory keeps accepted events, and only rings of dead publishers are adopted."""

from __future__ import annotations

import os
import random
import signal
import struct
from collections import deque
from pathlib import Path
from zlib import crc32

import pytest

from support.rings import use_ring_directory
from support.until import until
from trialbus.client.ring_directory import adopt_rings, create_ring
from trialbus.client.shared_ring import RingEvent, SharedRing

ENDPOINT = "ipc:///test-ring"
PUBLISHER = bytes(range(16))
SECOND_RECORD = 64 + 32  # after a first record of at most 32 bytes


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_ring_directory(tmp_path, monkeypatch)


def create(capacity: int = 4096) -> SharedRing:
    ring = create_ring(ENDPOINT, PUBLISHER, capacity)
    assert ring is not None
    return ring


def leave_ring(count: int) -> Path:
    """Leave a ring of `count` events, of 32 bytes each, like a dead process."""
    ring = create()
    for seq in range(1, count + 1):
        ring.append(seq, b"topic", b"body %02d" % seq)
    ring.close()
    return ring.path


def adopt() -> tuple[list[int], int] | None:
    """Adopt the only ring; return the numbers of the events, and the count of damaged events."""
    rings = list(adopt_rings(ENDPOINT))
    if not rings:
        return None
    ((ring, events),) = rings
    assert all(event == (event.seq, "topic", b"body %02d" % event.seq) for event in events)
    ring.free(len(events))
    ring.close()
    assert not ring.path.exists()
    return [event.seq for event in events], ring.damaged


def overwrite(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def test_a_ring_holds_what_a_queue_would_hold_while_it_wraps_around() -> None:
    ring, queue, chance, seq = create(), deque[RingEvent](), random.Random(1), 0
    n_refused = 0
    for _ in range(5000):
        if chance.random() < 0.7:
            topic, body = "t" * chance.randrange(1, 40), chance.randbytes(chance.randrange(300))
            if ring.append(seq + 1, topic.encode(), body):
                seq += 1
                queue.append(RingEvent(seq, topic, body))
            else:
                n_refused += 1
        elif queue:
            count = chance.randint(1, min(3, len(queue)))
            ring.free(count)
            for _ in range(count):
                queue.popleft()
        assert ring.read_events() == list(queue)
        assert ring.damaged == 0
    assert n_refused > 100
    ring.free(len(queue))
    ring.close()


def test_an_empty_ring_is_removed_and_a_ring_with_events_stays() -> None:
    ring = create()
    ring.close()
    assert not ring.path.exists()
    ring = create()
    ring.append(1, b"t", b"body")
    ring.close()
    assert ring.path.exists()


def test_the_ring_of_a_killed_process_is_adopted_and_that_of_a_living_one_is_not() -> None:
    living = create()
    living.append(1, b"living", b"")
    child = os.fork()
    if child == 0:
        ring = create_ring(ENDPOINT, b"c" * 16, 4096)
        assert ring is not None
        for seq in range(1, 4):
            ring.append(seq, b"a/b/c", b"body %d" % seq)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    ((adopted, events),) = adopt_rings(ENDPOINT)
    assert adopted.publisher == b"c" * 16
    assert events == [(seq, "a/b/c", b"body %d" % seq) for seq in (1, 2, 3)]
    adopted.free(3)
    adopted.close()
    living.free(1)
    living.close()


def test_a_forked_child_that_lives_on_does_not_make_its_dead_parent_look_alive() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        ring = create()
        ring.append(1, b"t", b"body")
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(write, str(child).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    grandchild = int(os.read(read, 32))
    try:
        # The grandchild gives the lock up as its first act, maybe after its parent's last.
        ((_, events),) = until(lambda: list(adopt_rings(ENDPOINT)))
        assert events == [(1, "t", b"body")]
    finally:
        os.kill(grandchild, signal.SIGKILL)
        os.close(read)
        os.close(write)


def test_an_altered_event_is_not_read_and_those_around_it_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = leave_ring(4)
    overwrite(path, SECOND_RECORD + 30, b"X")
    assert adopt() == ([1, 3, 4], 1)
    assert "1 are damaged and not sent, and 3 are intact" in caplog.text
    assert PUBLISHER.hex() in caplog.text
    copy = path.with_suffix(".damaged")
    assert str(copy) in caplog.text
    assert b"X" in copy.read_bytes()


def test_a_ring_is_cut_where_a_damaged_size_hides_the_next_record() -> None:
    path = leave_ring(4)
    overwrite(path, SECOND_RECORD + 4, struct.pack("=I", 48))
    assert adopt() == ([1], 3)


def test_a_cut_ring_is_not_reported_twice() -> None:
    overwrite(leave_ring(2), SECOND_RECORD + 4, b"\xff")
    ((ring, events),) = adopt_rings(ENDPOINT)
    assert (len(events), ring.damaged) == (1, 1)
    ring.close()
    ((ring, events),) = adopt_rings(ENDPOINT)
    assert (len(events), ring.damaged) == (1, 0)
    ring.close()


@pytest.mark.parametrize(("last", "damaged"), [(1, 0), (1 << 40, 198)])
def test_a_damaged_number_of_the_newest_event_hides_no_event(last: int, damaged: int) -> None:
    overwrite(leave_ring(4), 16, struct.pack("=Q", last))
    assert adopt() == ([1, 2, 3, 4], damaged)  # at most as many as the rest of the ring can hold


def test_an_event_that_is_complete_when_the_process_is_killed_is_read() -> None:
    overwrite(leave_ring(1), 16, struct.pack("=Q", 0))
    assert adopt() == ([1], 0)


def test_events_freed_when_the_process_is_killed_are_not_read_again() -> None:
    ring = create()
    for seq in range(1, 5):
        ring.append(seq, b"topic", b"body %02d" % seq)
    tail = ring.path.read_bytes()[24:32]
    ring.free(2)
    ring.close()
    overwrite(ring.path, 24, tail)  # `base` was stored, `tail` was not
    assert adopt() == ([3, 4], 0)


@pytest.mark.parametrize("position", [0, 8, 24, 32, 48, 56])
def test_a_ring_with_a_damaged_header_is_put_aside(
    position: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = leave_ring(1)
    overwrite(path, position, b"\xee")
    assert adopt() is None
    assert path.with_suffix(".damaged").exists()
    assert not path.exists()
    assert "is damaged" in caplog.text


def test_a_ring_of_the_previous_version_is_put_aside(caplog: pytest.LogCaptureFixture) -> None:
    path = leave_ring(1)
    record = struct.pack("=QQ", (16 + 5 + 4) | 5 << 32, 1) + b"topicbody"
    header = struct.pack("=8sQQQ16s", b"TBRING01", 4096, len(record) + 7 & -8, 0, PUBLISHER)
    path.write_bytes((header + bytes(16) + record).ljust(64 + 4096, b"\0"))
    assert adopt() is None
    assert path.with_suffix(".damaged").exists()
    assert "another version of trialbus wrote it" in caplog.text


def test_records_of_another_publisher_do_not_verify() -> None:
    path = leave_ring(2)
    other = b"o" * 16
    constants = crc32(struct.pack("=8sQ16s", b"TBRING02", 4096, other))
    overwrite(path, 32, other)
    overwrite(path, 56, struct.pack("=Q", constants))
    assert adopt() is None


def test_without_memory_there_is_no_ring(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    assert create_ring(ENDPOINT, PUBLISHER) is None
    assert "will not survive this process" in caplog.text
    assert not list(directory.glob("*.new"))
