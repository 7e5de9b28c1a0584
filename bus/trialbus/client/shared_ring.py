"""A ring buffer in shared memory: an outbox's events outlive the process that accepted them.

A ring is a mapped file in memory (`/dev/shm`). The owning process holds a lock on the file while
it lives; a ring without a lock belongs to a dead process. Layout, in native byte order:

    0   magic, 8 bytes        24  tail: bytes ever freed
    8   capacity in bytes     32  publisher id, 16 bytes
    16  head: bytes ever put  64  records; the first follows the last

A record is an 8-byte word with the record's size and, in the upper half, the length of the topic;
a word with the sequence number; the topic; and the body. A record begins at a multiple of 8.
Storing `head` is one aligned 8-byte write: before the write the event is not accepted, after the
write the event is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

DEFAULT_BYTES = 4 << 20

_MAGIC = b"TBRING01"
_START = 64
_HEAD, _TAIL = 2, 3  # in 8-byte words
_WORDS = 16  # bytes before the topic
_WRAP = 0xFFFFFFFF  # in place of a size, which is all that may fit: the next record is the first
_SUFFIX = ".ring"


class RingEvent(NamedTuple):
    """An event read from a ring."""

    seq: int
    topic: str
    body: bytes


class SharedRing:
    """A ring whose lock this process holds. Made by `create` and `adopt_all`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._words = memoryview(self._memory).cast("Q")
        self._capacity = int(self._words[1])
        self._end = len(self._memory)
        # Copies: after a step of training the processor's caches no longer hold the mapped words.
        self._head, self._tail = int(self._words[_HEAD]), int(self._words[_TAIL])
        self.publisher = bytes(self._memory[32:48])
        self._sizes: deque[int] = deque()

    def append(self, seq: int, topic: bytes, body: bytes) -> bool:
        """Append an event; False when the ring has no room for the event."""
        data = topic + body
        size = _WORDS + len(data)
        space = (size + 7) & -8
        at = _START + self._head % self._capacity
        skipped = self._end - at
        if skipped < space:
            at, space = _START, skipped + space
        else:
            skipped = 0
        head = self._head + space
        if head - self._tail > self._capacity:
            return False
        words = self._words
        if skipped:
            words[(self._end - skipped) >> 3] = _WRAP
        words[at >> 3] = size | len(topic) << 32
        words[(at >> 3) + 1] = seq
        self._memory[at + _WORDS : at + size] = data
        words[_HEAD] = self._head = head
        self._sizes.append(space)
        return True

    def free(self, count: int) -> None:
        """Remove the oldest `count` events."""
        self._tail += sum(self._sizes.popleft() for _ in range(count))
        self._words[_TAIL] = self._tail

    def close(self) -> None:
        """Close the ring and remove an empty ring's file; an adopter finds a file with events."""
        if self._head == self._tail:
            self.path.unlink(missing_ok=True)
        self._words.release()
        self._memory.close()
        unlock(self._lock)

    def read_events(self) -> list[RingEvent]:
        """Read every event in the ring, oldest first.

        Raises:
            ValueError: A record is damaged.
        """
        position = self._tail
        self._sizes.clear()
        events: list[RingEvent] = []
        skipped = 0
        while position < self._head:
            at = _START + position % self._capacity
            word = self._words[at >> 3]
            size, topic_length = word & 0xFFFFFFFF, word >> 32
            if size == _WRAP:
                skipped = self._end - at
                position += skipped
                continue
            if not _WORDS + topic_length <= size <= self._end - at:
                raise ValueError(f"a record of {size} bytes at {at}")
            body_at = at + _WORDS + topic_length
            topic = self._memory[at + _WORDS : body_at].decode()
            seq, body = self._words[(at >> 3) + 1], self._memory[body_at : at + size]
            events.append(RingEvent(seq, topic, body))
            space = (size + 7) & -8
            self._sizes.append(skipped + space)
            position += space
            skipped = 0
        return events


def create(endpoint: str, publisher: bytes, capacity: int = DEFAULT_BYTES) -> SharedRing | None:
    """Create the ring of a publisher; None on a host without shared memory."""
    path = directory(endpoint) / f"{publisher.hex()}{_SUFFIX}"
    unfinished = path.with_suffix(".new")
    capacity = -(-capacity // 8) * 8
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with unfinished.open("xb") as file:
            if sys.platform == "linux":
                # Reserve the memory now: a write to a full memory file system kills the process.
                os.posix_fallocate(file.fileno(), 0, _START + capacity)
            else:
                file.truncate(_START + capacity)
            file.write(_MAGIC + struct.pack("=QQQ", capacity, 0, 0) + publisher)
        lock = try_lock(unfinished)
        if lock is None:
            return None
        unfinished.rename(path)
        return SharedRing(path, lock)
    except OSError as error:
        logger.warning(
            "no shared memory for the outbox (%s): unsent events will not survive this process",
            error,
        )
        with contextlib.suppress(OSError):
            unfinished.unlink()
        return None


def adopt_all(endpoint: str) -> Iterator[tuple[SharedRing, list[RingEvent]]]:
    """Lock and yield every ring on this host whose owner is dead, with the events of the ring."""
    try:
        paths = [path for path in directory(endpoint).iterdir() if path.suffix == _SUFFIX]
    except FileNotFoundError:
        return
    for path in paths:
        lock = try_lock(path)
        if lock is None:
            continue
        try:
            ring = SharedRing(path, lock)
            events = ring.read_events()
        except (ValueError, TypeError, OSError, IndexError) as error:
            logger.warning(
                "renamed a damaged outbox to %s: %s", path.with_suffix(".damaged"), error
            )
            path.rename(path.with_suffix(".damaged"))
            unlock(lock)
            continue
        if events:
            yield ring, events
        else:
            ring.close()


def directory(endpoint: str) -> Path:
    """Return the folder for the rings of this user's publishers to a hub, on this host."""
    shared = Path("/dev/shm")  # noqa: S108 - the folder below it is this user's alone
    base = shared if shared.is_dir() else Path(tempfile.gettempdir())
    name = hashlib.sha256(endpoint.encode()).hexdigest()[:16]
    return base / f"trialbus-{os.getuid()}" / name


def try_lock(path: Path) -> int | None:
    """Lock a file and return the descriptor; None if another process holds the lock.

    None also if the file does not exist any more. Forked children give the lock up, so that a child
    that outlives its parent does not make the parent look alive.
    """
    try:
        # Not the mapping's descriptor: a forked child would keep that descriptor, and the lock.
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    if not path.exists():  # another process adopted and removed the ring in between
        os.close(lock)
        return None
    _locks.add(lock)
    return lock


def unlock(lock: int) -> None:
    """Give up a lock."""
    if lock in _locks:
        _locks.remove(lock)
        os.close(lock)


_locks: set[int] = set()


def _unlock_in_child() -> None:
    for lock in list(_locks):
        unlock(lock)


os.register_at_fork(after_in_child=_unlock_in_child)
