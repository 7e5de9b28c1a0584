"""Watermark: the end of the log in a file beside the log, by which a lost tail is noticed.

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
from typing import NamedTuple

from trialbus.protocol.private_folder import open_private_file

logger = logging.getLogger(__name__)

# Two slots, written in turn: one of them is whole, whenever the process dies.
_SLOT = struct.Struct("<16sQQI")
_HEAD = struct.Struct("<16sQQ")
_SLOT_OFFSETS = (0, 512)
_SIZE = 1024


class Mark(NamedTuple):
    """How far a log had come."""

    log_id: bytes
    """Id of the log, 16 bytes."""
    end: int
    """Offset that the next event gets."""
    n_commits: int
    """Number of transactions since the log was made."""


class Watermark:
    """The watermark of the log in a directory.

    Args:
        path: File of the watermark; made if it is missing.

    Raises:
        OSError: The file cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.fdopen(open_private_file(path), "r+b", buffering=0)
        self._fd = self._file.fileno()
        if os.fstat(self._fd).st_size < _SIZE:
            os.pwrite(self._fd, bytes(_SIZE), 0)  # later writes need no space on the disk
        self._turn = 0
        self._has_failed = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> Mark | None:
        """Return the last written mark; None before the first."""
        return read_mark(os.pread(self._fd, _SIZE, 0))

    def write(self, mark: Mark) -> None:
        """Write how far the log has come."""
        head = _HEAD.pack(*mark)
        try:
            os.pwrite(self._fd, head + zlib.crc32(head).to_bytes(4, "little"), self._offset())
        except OSError as error:
            if not self._has_failed:
                logger.warning("%s cannot be written: %s", self.path, error.strerror)
            self._has_failed = True

    def _offset(self) -> int:
        self._turn ^= 1
        return _SLOT_OFFSETS[self._turn]


def read_mark(data: bytes) -> Mark | None:
    """Return the newest mark in the content of a watermark file."""
    marks: list[Mark] = []
    for offset in _SLOT_OFFSETS:
        slot = data[offset : offset + _SLOT.size]
        if len(slot) == _SLOT.size:
            *mark, expected = _SLOT.unpack(slot)
            if zlib.crc32(slot[: _HEAD.size]) == expected:
                marks.append(Mark(*mark))
    return max(marks, key=lambda mark: mark.n_commits, default=None)
