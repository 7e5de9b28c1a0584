"""The ring keeps what it accepted, and only the dead are inherited."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import deque
from collections.abc import Iterator

import pytest

from support.until import until
from trialbus.client import shared_ring

ENDPOINT = f"ipc:///test-ring-{os.getpid()}"
IDENTITY = bytes(range(16))


@pytest.fixture(autouse=True)
def folder() -> Iterator[None]:
    yield
    shutil.rmtree(shared_ring.directory(ENDPOINT), ignore_errors=True)


def made(capacity: int = 4096) -> shared_ring.SharedRing:
    found = shared_ring.create(ENDPOINT, IDENTITY, capacity)
    assert found is not None
    return found


def test_it_holds_what_a_queue_would_hold_around_and_around() -> None:
    memory, model, chance, seq = made(), deque[tuple[int, str, bytes]](), random.Random(1), 0
    refused = 0
    for _ in range(5000):
        if chance.random() < 0.7:
            event = (
                seq + 1,
                "t" * chance.randrange(1, 40),
                chance.randbytes(chance.randrange(300)),
            )
            if memory.append(event[0], event[1].encode(), event[2]):
                model.append(event)
                seq += 1
            else:
                refused += 1
        elif model:
            count = chance.randint(1, min(3, len(model)))
            memory.free(count)
            for _ in range(count):
                model.popleft()
        assert memory.read_events() == list(model)
    assert refused > 100
    memory.free(len(model))
    memory.close()


def test_an_empty_one_is_removed_and_one_that_holds_something_stays() -> None:
    memory = made()
    memory.close()
    assert not memory.path.exists()
    memory = made()
    memory.append(1, b"t", b"body")
    memory.close()
    assert memory.path.exists()


def test_what_a_killed_process_accepted_is_inherited_and_a_living_one_s_is_not() -> None:
    mine = made()
    mine.append(1, b"mine", b"")
    child = os.fork()
    if child == 0:
        theirs = shared_ring.create(ENDPOINT, b"c" * 16, 4096)
        assert theirs is not None
        for seq in range(1, 4):
            theirs.append(seq, b"a/b/c", b"body %d" % seq)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    ((heir, events),) = shared_ring.adopt_all(ENDPOINT)
    assert heir.publisher == b"c" * 16
    assert events == [(seq, "a/b/c", b"body %d" % seq) for seq in (1, 2, 3)]
    heir.free(3)
    heir.close()
    mine.free(1)
    mine.close()


def test_a_forked_child_that_lives_on_does_not_make_its_dead_parent_look_alive() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        memory = made()
        memory.append(1, b"t", b"body")
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(write, str(child).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    grandchild = int(os.read(read, 32))
    try:
        # The grandchild lets go of the lock as its first act, maybe after its parent's last.
        ((_, events),) = until(lambda: list(shared_ring.adopt_all(ENDPOINT)))
        assert events == [(1, "t", b"body")]
    finally:
        os.kill(grandchild, signal.SIGKILL)
        os.close(read)
        os.close(write)


def test_a_damaged_one_is_put_aside_and_said(caplog: pytest.LogCaptureFixture) -> None:
    memory = made()
    memory.append(1, b"t", b"body")
    memory.close()
    content = bytearray(memory.path.read_bytes())
    content[64:68] = b"\xff\xff\xff\x7f"
    memory.path.write_bytes(content)
    assert list(shared_ring.adopt_all(ENDPOINT)) == []
    assert memory.path.with_suffix(".damaged").exists()
    assert "damaged outbox" in caplog.text


def test_where_there_is_no_shared_memory_there_is_no_ring(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert shared_ring.create(ENDPOINT, IDENTITY) is None
    assert "will not survive this process" in caplog.text
    assert not list(shared_ring.directory(ENDPOINT).glob("*.new"))
