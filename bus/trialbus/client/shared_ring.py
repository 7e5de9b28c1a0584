"""Ring: an outbox's events in shared memory, where they outlive the process that accepted them.

A file in memory (`/dev/shm`), mapped. Its owner holds a lock on it for as long as it lives, by
which anyone can tell a dead owner's ring from a living one's. Layout, in native byte order:

    0   magic, 8 bytes        24  tail: bytes ever freed
    8   capacity in bytes     32  publisher id, 16 bytes
    16  head: bytes ever put  64  records, around and around

A record is an 8-byte word of its size and, in the upper half, the length of its topic, a word with
its sequence number, the topic and the body. It begins at a multiple of 8. Storing `head` is one
aligned 8-byte write: before it the event was not accepted, after it the event is whole.
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

logger = logging.getLogger(__name__)

DEFAULT_BYTES = 4 << 20

_MAGIC = b"TBRING01"
_START = 64
_HEAD, _TAIL = 2, 3  # in 8-byte words
_WORDS = 16  # bytes before the topic
_WRAP = 0xFFFFFFFF  # in place of a size: go on at the beginning; there may be room for no more
_SUFFIX = ".ring"


class Ring:
    """A ring file that this process holds the lock of. Made by `create` and `adopt_all`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._words = memoryview(self._memory).cast("Q")
        self._capacity = int(self._words[1])
        self._end = len(self._memory)
        # Known here, too: `append` does little, and touches little that no cache holds any more
        # after a step of training.
        self._head, self._tail = int(self._words[_HEAD]), int(self._words[_TAIL])
        self.publisher = bytes(self._memory[32:48])
        self._sizes: deque[int] = deque()

    def append(self, seq: int, topic: bytes, body: bytes) -> bool:
        """Put an event; False when there is no room for it."""
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
        """Forget the oldest `count` events."""
        self._tail += sum(self._sizes.popleft() for _ in range(count))
        self._words[_TAIL] = self._tail

    def close(self) -> None:
        """Remove the file if it is empty; else leave it to whoever adopts it."""
        if self._head == self._tail:
            self.path.unlink(missing_ok=True)
        self._words.release()
        self._memory.close()
        unlock(self._lock)

    def events(self) -> list[tuple[int, str, bytes]]:
        """Read what is in it, oldest first: sequence number, topic, body.

        Raises:
            ValueError: It is not a ring, or damaged.
        """
        position = self._tail
        self._sizes.clear()
        found: list[tuple[int, str, bytes]] = []
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
            found.append((self._words[(at >> 3) + 1], topic, self._memory[body_at : at + size]))
            space = (size + 7) & -8
            self._sizes.append(skipped + space)
            position += space
            skipped = 0
        return found


def create(endpoint: str, publisher: bytes, capacity: int = DEFAULT_BYTES) -> Ring | None:
    """Make a ring for a publisher on this host; None where shared memory cannot be had."""
    path = directory(endpoint) / f"{publisher.hex()}{_SUFFIX}"
    unfinished = path.with_suffix(".new")
    capacity = -(-capacity // 8) * 8
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with unfinished.open("xb") as file:
            if sys.platform == "linux":
                # Reserved now: a full memory file system would kill the process at the first write.
                os.posix_fallocate(file.fileno(), 0, _START + capacity)
            else:
                file.truncate(_START + capacity)
            file.write(_MAGIC + struct.pack("=QQQ", capacity, 0, 0) + publisher)
        lock = try_lock(unfinished)
        if lock is None:
            return None
        unfinished.rename(path)
        return Ring(path, lock)
    except OSError as error:
        logger.warning(
            "no shared memory for the outbox (%s): events that are not sent yet will not "
            "survive this process",
            error,
        )
        with contextlib.suppress(OSError):
            unfinished.unlink()
        return None


def adopt_all(endpoint: str) -> Iterator[tuple[Ring, list[tuple[int, str, bytes]]]]:
    """Yield every ring on this host whose owner is dead, locked, with the events it holds."""
    try:
        paths = [path for path in directory(endpoint).iterdir() if path.suffix == _SUFFIX]
    except FileNotFoundError:
        return
    for path in paths:
        lock = try_lock(path)
        if lock is None:
            continue
        try:
            ring = Ring(path, lock)
            events = ring.events()
        except (ValueError, TypeError, OSError, IndexError) as error:
            logger.warning("put aside a damaged outbox, %s: %s", path, error)
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
    """Return a descriptor that holds the lock of a file; None if somebody else does, or it is gone.

    It is not held by forked children, so that one that lives on does not make its dead parent
    look alive.
    """
    try:
        # Not the descriptor of a mapping, which a child would keep, and the lock with it.
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    if not path.exists():  # adopted and removed in between
        os.close(lock)
        return None
    _held.add(lock)
    return lock


def unlock(lock: int) -> None:
    """Give up a lock."""
    if lock in _held:
        _held.remove(lock)
        os.close(lock)


_held: set[int] = set()


def _let_go_in_child() -> None:
    for lock in list(_held):
        unlock(lock)


os.register_at_fork(after_in_child=_let_go_in_child)
