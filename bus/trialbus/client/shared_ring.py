"""A ring buffer in shared memory: the events of an outbox outlive the publisher's process.

A ring is a mapped file in memory (`/dev/shm`). Layout, in native byte order:

    0   magic, 8 bytes                                  32  publisher id, 16 bytes
    8   capacity in bytes                               48  base: number of the oldest event
    16  last: sequence number of the newest event       56  CRC-32 of magic, capacity, publisher
    24  tail: bytes ever freed                          64  records; the first follows the last

A record is a CRC-32, the size in 4 bytes, the sequence number in 8, the length of the topic in 4,
the topic, and the body. The CRC begins with the publisher id and covers the rest of the record.
A record begins at a multiple of 8; a record that does not fit before the end of the ring begins at
the start. Storing `last` is one aligned 8-byte write, which accepts the event. `tail` and `base`
hold a CRC-16 of their lower 48 bits in the upper 16.

A record that does not verify is never returned. Reading goes on where the sizes lead to a record
that verifies and has a higher number; what was freed before has a lower number.
"""

from __future__ import annotations

import binascii
import mmap
import os
import struct
from collections import deque
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from trialbus.client.private_files import unlock

_MAGIC = b"TBRING02"
_START = 64
_LAST, _TAIL, _BASE = 2, 3, 6  # in 8-byte words
_CONSTANTS = struct.Struct("=8sQ16s")
_HEADER = struct.Struct("=8sQQQ16sQQ")
_CRC_BYTES = 4
_FIELDS = struct.Struct("=IQI")  # of a record: size, sequence number, length of the topic
_HEAD_BYTES = _CRC_BYTES + _FIELDS.size
_LOW_48 = (1 << 48) - 1


class RingError(ValueError):
    """The header of a ring is damaged, or another version of trialbus wrote the ring."""


class RingEvent(NamedTuple):
    """An event read from a ring."""

    seq: int
    topic: str
    body: bytes


class SharedRing:
    """A ring that this process has locked.

    Args:
        path: File of the ring, which begins with `encode_header`.
        lock: Descriptor of the locked file.

    Raises:
        RingError: The header cannot be used.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self.capacity, self.publisher = _decode_header(os.pread(lock, _START, 0))
        self._end = _START + self.capacity
        if os.fstat(lock).st_size < self._end:  # the file was cut short
            os.ftruncate(lock, self._end)
        # Not the lock's descriptor: a forked child would keep that descriptor, and the lock.
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._memory = mmap.mmap(file, self._end)
        finally:
            os.close(file)
        self._words = memoryview(self._memory).cast("Q")
        self._checksums = memoryview(self._memory).cast("I")
        self._seed = crc32(self.publisher)
        # Copies: after a step of training the processor's caches no longer hold the mapped words.
        self._head = self._tail = _verify_word(self._words[_TAIL], "tail")
        self._base = _verify_word(self._words[_BASE], "base")
        self._sizes: deque[int] = deque()
        self.damaged = 0  #: number of accepted events that `read_events` could not verify

    def append(self, seq: int, topic: bytes, body: bytes) -> bool:
        """Append an event; False when the ring has no room for the event."""
        size = _HEAD_BYTES + len(topic) + len(body)
        space = (size + 7) & -8
        at = _START + self._head % self.capacity
        skipped = self._end - at
        if skipped < space:
            at, space = _START, skipped + space
        head = self._head + space
        if head - self._tail > self.capacity:
            return False
        data = _FIELDS.pack(size, seq, len(topic)) + topic + body
        self._memory[at + _CRC_BYTES : at + size] = data
        self._checksums[at >> 2] = crc32(data, self._seed)
        self._words[_LAST] = seq
        self._head = head
        self._sizes.append(space)
        return True

    def free(self, count: int) -> None:
        """Remove the oldest `count` events."""
        self._tail += sum(self._sizes.popleft() for _ in range(count))
        self._base += count
        # In this order: a reader passes over records below `base`, should a kill come in between.
        self._words[_BASE] = _protect_word(self._base)
        self._words[_TAIL] = _protect_word(self._tail)

    @property
    def is_in_place(self) -> bool:
        """Whether an adopter would find the file of this ring at the path."""
        try:
            return os.path.samestat(os.fstat(self._lock), self.path.lstat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the ring and remove an empty ring's file; an adopter finds a file with events."""
        if not self._sizes and self.is_in_place:
            self.path.unlink(missing_ok=True)
        self._checksums.release()
        self._words.release()
        self._memory.close()
        unlock(self._lock)

    def read_events(self) -> list[RingEvent]:
        """Read every intact event of an adopted ring, oldest first, and count the damaged events.

        The numbers of the events have a gap where records are damaged.
        """
        position = self._tail
        seq, last = self._base, int(self._words[_LAST])
        limit = position + self.capacity
        events: list[RingEvent] = []
        self._sizes.clear()
        self.damaged = 0
        while position < limit:
            event, following = self._find_record(position, seq)
            if event is None and seq <= last:
                event, following = self._find_record_after_damage(position, seq, limit)
            if event is None:
                break
            self.damaged += event.seq - seq
            events.append(event)
            self._sizes.append(following - position)
            position, seq = following, event.seq + 1
        if seq <= last:
            # Where `last` itself is damaged, no more records are lost than fit into the rest.
            self.damaged += min(last - seq + 1, max(1, (limit - position) // _HEAD_BYTES))
            self._words[_LAST] = seq - 1  # so that nobody reads, and reports, the rest again
        return events

    def _find_record(self, position: int, seq: int) -> tuple[RingEvent | None, int]:
        """Return the event at `position`, or event `seq` at the start; and where the next begins.

        The event at `position` may have a higher number than `seq`.
        """
        event, following = self._read_record(position)
        if event is None or event.seq < seq:
            event, following = self._read_record(self._next_lap(position))
            if event is not None and event.seq != seq:
                event = None
        return event, following

    def _find_record_after_damage(
        self, position: int, seq: int, limit: int
    ) -> tuple[RingEvent | None, int]:
        """Follow the sizes of records up to an intact event that is numbered at least `seq`."""
        event: RingEvent | None = None
        while position < limit and (event is None or event.seq < seq):
            event, position = self._read_record(position)
        return (event if event is not None and event.seq >= seq else None), position

    def _read_record(self, position: int) -> tuple[RingEvent | None, int]:
        """Return the event at `position`, None if damaged, and where the next record begins."""
        at = _START + position % self.capacity
        size = int(self._checksums[(at >> 2) + 1])
        if not _HEAD_BYTES <= size <= self._end - at:
            return None, self._next_lap(position)
        following = position + ((size + 7) & -8)
        data = self._memory[at + _CRC_BYTES : at + size]
        if crc32(data, self._seed) != self._checksums[at >> 2]:
            return None, following
        _, seq, topic_length = _FIELDS.unpack_from(data)
        body_at = _FIELDS.size + topic_length
        try:
            topic = data[_FIELDS.size : body_at].decode()
        except UnicodeDecodeError:  # a damaged record whose CRC fits by chance
            return None, following
        return RingEvent(seq, topic, data[body_at:]), following

    def _next_lap(self, position: int) -> int:
        """Return the next position at the start of the ring."""
        return position + self.capacity - position % self.capacity


def read_last(path: Path) -> int:
    """Return the number of the newest event in a ring that another process may be writing.

    Raises:
        OSError: There is no such file any more.
    """
    with path.open("rb") as file:
        header = file.read(_START)
    return _HEADER.unpack(header)[_LAST] if len(header) == _START else 0


def encode_header(capacity: int, publisher: bytes, base: int = 1) -> bytes:
    """Return the header of an empty ring.

    Args:
        capacity: Bytes of records, a multiple of 8.
        publisher: Id of the publisher.
        base: Sequence number of the first event.
    """
    constants = crc32(_CONSTANTS.pack(_MAGIC, capacity, publisher))
    base_word, tail = _protect_word(base), _protect_word(0)
    return _HEADER.pack(_MAGIC, capacity, base - 1, tail, publisher, base_word, constants)


def _decode_header(header: bytes) -> tuple[int, bytes]:
    """Return capacity and publisher id of a ring."""
    if len(header) < _START:
        raise RingError("the header is incomplete")
    magic, capacity, _, _, publisher, _, checksum = _HEADER.unpack(header)
    if checksum != crc32(_CONSTANTS.pack(_MAGIC, capacity, publisher)):
        if magic != _MAGIC and magic.startswith(_MAGIC[:6]):
            raise RingError("another version of trialbus wrote it")
        raise RingError("the header is damaged")
    if magic != _MAGIC:
        raise RingError("the header is damaged")
    return capacity, publisher


def _protect_word(value: int) -> int:
    return value | binascii.crc_hqx(value.to_bytes(6, "little"), 0xFFFF) << 48


def _verify_word(word: int, name: str) -> int:
    value = word & _LOW_48
    if word != _protect_word(value):
        raise RingError(f"the {name} in the header is damaged")
    return value
