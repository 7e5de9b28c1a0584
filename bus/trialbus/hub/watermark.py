"""Watermark: the end of the log, kept beside its file, by which a lost tail is noticed.

A write-ahead log that was deleted or cut, or an older copy of the file put back, leaves a log that
verifies and is short. The watermark is written after every commit and before anybody is told, by a
system call and without a flush: it outlives the hub's process, and after a power failure it may
only be older than the log.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path

logger = logging.getLogger(__name__)

# Two slots, written in turn: one of them is whole, whenever the process dies.
_SLOT = struct.Struct("<16sQI")
_HEAD = struct.Struct("<16sQ")
_SLOT_OFFSETS = (0, 512)
_SIZE = 1024


class Watermark:
    """The watermark of the log in a directory.

    Args:
        path: File of the watermark; made if it is missing.

    Raises:
        OSError: The file cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        self._fd = self._file.fileno()
        if os.fstat(self._fd).st_size < _SIZE:
            os.pwrite(self._fd, bytes(_SIZE), 0)  # later writes need no space on the disk
        self._turn = 0
        self._has_failed = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> tuple[bytes, int] | None:
        """Return the id of the log and the end that were written last; None if there are none."""
        return read_slots(os.pread(self._fd, _SIZE, 0))

    def write(self, log_id: bytes, end: int) -> None:
        """Write the end of the log with the 16-byte id `log_id`."""
        head = _HEAD.pack(log_id, end)
        try:
            os.pwrite(self._fd, head + zlib.crc32(head).to_bytes(4, "little"), self._offset())
        except OSError as error:
            if not self._has_failed:
                logger.warning("%s cannot be written: %s", self.path, error.strerror)
            self._has_failed = True

    def _offset(self) -> int:
        self._turn ^= 1
        return _SLOT_OFFSETS[self._turn]


def read_slots(data: bytes) -> tuple[bytes, int] | None:
    """Return the newest log id and end in the content of a watermark file."""
    found: list[tuple[int, bytes]] = []
    for offset in _SLOT_OFFSETS:
        slot = data[offset : offset + _SLOT.size]
        if len(slot) < _SLOT.size:
            continue
        log_id, end, expected = _SLOT.unpack(slot)
        if zlib.crc32(slot[: _HEAD.size]) == expected:
            found.append((end, log_id))
    if not found:
        return None
    end, log_id = max(found)
    return log_id, end
