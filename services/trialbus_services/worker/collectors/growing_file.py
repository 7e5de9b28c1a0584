"""Growing file: the lines that a text file has gained since they were read last."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ANCHOR_BYTES = 64
_MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 4 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")


class GrowingFile:
    """Reads the lines that another process adds to a text file.

    What stands in the file at the beginning is left out: an earlier attempt wrote it. A file that
    is replaced, cut or written anew is read from its start. A progress bar ends its lines by a
    carriage return, so such an end counts as the end of a line.

    Args:
        path: Path of the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._partial = b""
        self._anchor = b""  # the bytes before `_offset`, which change if the file is written anew
        self._file_id: tuple[int, int] | None = None
        self._skip()

    def read_lines(self, *, is_complete: bool = False) -> list[str]:
        """Return the lines that are new.

        Args:
            is_complete: Whether the file grows no more, so that its last line needs no end.

        Raises:
            OSError: The file cannot be read.
        """
        lines: list[str] = []
        try:
            with self.path.open("rb") as file:
                self._find_new_start(file.fileno())
                while chunk := os.pread(file.fileno(), _CHUNK_BYTES, self._offset):
                    self._offset += len(chunk)
                    self._anchor = (self._anchor + chunk)[-_ANCHOR_BYTES:]
                    lines += self._split(chunk)
        except FileNotFoundError:
            pass
        if is_complete and self._partial:
            lines.append(self._partial.decode(errors="replace"))
            self._partial = b""
        return lines

    def read_first_line(self) -> str | None:
        """Return the first line of the file, or None while there is no whole line.

        Raises:
            OSError: The file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                line = file.readline(_MAX_LINE_BYTES)
        except FileNotFoundError:
            return None
        return line.decode(errors="replace").rstrip("\r\n") if line.endswith(b"\n") else None

    def _skip(self) -> None:
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                self._file_id = (status.st_dev, status.st_ino)
                self._offset = status.st_size
                begin = max(0, self._offset - _ANCHOR_BYTES)
                self._anchor = os.pread(file.fileno(), self._offset - begin, begin)
        except OSError:
            return

    def _find_new_start(self, descriptor: int) -> None:
        """Begin at the start again if the file is another than before."""
        status = os.fstat(descriptor)
        file_id = (status.st_dev, status.st_ino)
        before = self._offset - len(self._anchor)
        is_same = (
            file_id == self._file_id
            and status.st_size >= self._offset
            and os.pread(descriptor, len(self._anchor), before) == self._anchor
        )
        if not is_same:
            self._offset, self._partial, self._anchor = 0, b"", b""
        self._file_id = file_id

    def _split(self, chunk: bytes) -> list[str]:
        *lines, partial = _LINE_END.split(self._partial + chunk)
        # A carriage return at the end of a chunk may be half of an end of line; the empty line that
        # the other half makes then holds nothing.
        self._partial = partial if len(partial) <= _MAX_LINE_BYTES else b""
        return [line.decode(errors="replace") for line in lines if line]
