"""Carving: the rows in the pages of a SQLite file, read without SQLite.

SQLite reaches a row over the pages of a tree, and none behind a page that is damaged or missing.
Here every page is read by itself, in its newest version and in older ones. What is found is trusted
no more than any row: the caller verifies the checksum of each.

Source:
    https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from trialbus.hub.wal import Wal, read_page_size

_DB_HEADER = 100
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
# The header of an event's record: its size, NULL for the offset, a publisher's id as a blob.
_EVENT_RECORD = re.compile(rb"(?=[\x09-\x10]\x00[\x0c-\xff])", re.DOTALL)
_MAX_VARINT = 9
_MAX_PAYLOAD = 1 << 30
_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8)
_DOUBLE, _ZERO, _ONE, _FIRST_BLOB = 7, 8, 9, 12

#: Row id, None for a row of an index or of a table without row ids, and the values of the columns.
CarvedRow: TypeAlias = tuple[int | None, tuple[Any, ...]]


class PageCarver:
    """The pages of a database and its write-ahead log, and the rows in them.

    Args:
        path: File of the database.
        wal: Its write-ahead log; None without one.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, wal: Wal | None) -> None:
        self._file = path.open("rb", buffering=0)
        header = self._read(0, _DB_HEADER)
        size = read_page_size(header)
        self._page_size = size
        self._usable = size - (header[20] if len(header) > 20 and header[20] <= 64 else 0)
        self._n_pages = -(-path.stat().st_size // size)
        self._newest: dict[int, bytes] = {}
        self._versions: list[tuple[int, bytes]] = []
        if wal is not None and wal.page_size == size:
            self._versions = list(wal.read_pages())
            self._newest = wal.read_newest_pages()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read_rows(self) -> Iterator[CarvedRow]:
        """Yield the rows that the newest version of every page points to."""
        for number in range(1, self._n_pages + 1):
            if number not in self._newest:
                yield from self._read_cells(number, self._read_file_page(number))
        for number, page in self._newest.items():
            yield from self._read_cells(number, page)

    def read_older_rows(self) -> Iterator[CarvedRow]:
        """Yield the rows that other versions of pages point to."""
        for number in self._newest:
            yield from self._read_cells(number, self._read_file_page(number))
        for number, page in self._versions:
            yield from self._read_cells(number, page)

    def search_events(self) -> Iterator[CarvedRow]:
        """Yield what looks like the row of an event, at any place of any page."""
        for number in range(1, self._n_pages + 1):
            yield from self._search_page(self._read_file_page(number))
        for _, page in self._versions:
            yield from self._search_page(page)

    def _read(self, position: int, size: int) -> bytes:
        try:
            self._file.seek(position)
            return self._file.read(size)
        except OSError:  # a sector that the disk cannot read
            return b""

    def _read_file_page(self, number: int) -> bytes:
        return self._read((number - 1) * self._page_size, self._page_size)

    def _read_page(self, number: int) -> bytes:
        """Return the newest version of a page."""
        page = self._newest.get(number)
        return self._read_file_page(number) if page is None else page

    def _read_cells(self, number: int, page: bytes) -> Iterator[CarvedRow]:
        """Yield the rows of the cells of a page, as far as they can be read."""
        start = _DB_HEADER if number == 1 else 0
        if len(page) < start + 12:
            return
        kind = page[start]
        if kind not in {_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR}:
            return
        first = start + (12 if kind == _INDEX_INTERIOR else 8)
        n_cells = int.from_bytes(page[start + 3 : start + 5], "big")
        for i in range(first, min(first + 2 * n_cells, len(page) - 1), 2):
            cell = int.from_bytes(page[i : i + 2], "big")
            try:
                yield self._read_cell(page, cell + 4 * (kind == _INDEX_INTERIOR), kind)
            except (IndexError, ValueError, struct.error):
                continue

    def _read_cell(self, page: bytes, position: int, kind: int) -> CarvedRow:
        """Return the row of a cell of a page.

        Raises:
            IndexError, ValueError, struct.error: There is no row.
        """
        size, position = _read_varint(page, position)
        row_id: int | None = None
        if kind == _TABLE_LEAF:
            row_id, position = _read_varint(page, position)
        return row_id, _read_record(self._read_payload(page, position, size, kind))

    def _read_payload(self, page: bytes, position: int, size: int, kind: int) -> bytes:
        usable = self._usable
        largest = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if size <= largest:
            return page[position : position + size]
        if size > _MAX_PAYLOAD:
            raise ValueError(size)
        least = (usable - 12) * 32 // 255 - 23
        n_local = least + (size - least) % (usable - 4)
        n_local = n_local if n_local <= largest else least
        pieces = [page[position : position + n_local]]
        left = size - n_local
        number = int.from_bytes(page[position + n_local : position + n_local + 4], "big")
        while left > 0:
            page = self._read_page(number) if number else b""
            piece = page[4 : 4 + min(left, usable - 4)]
            if not piece:
                raise ValueError(number)
            pieces.append(piece)
            left -= len(piece)
            number = int.from_bytes(page[:4], "big")
        return b"".join(pieces)

    def _search_page(self, page: bytes) -> Iterator[CarvedRow]:
        for match in _EVENT_RECORD.finditer(page):
            for start in _find_varints(page, match.start()):
                for cell in _find_varints(page, start):
                    try:
                        yield self._read_cell(page, cell, _TABLE_LEAF)
                    except (IndexError, ValueError, struct.error):
                        continue


def _find_varints(page: bytes, end: int) -> Iterator[int]:
    """Yield the positions of the numbers that end before a position."""
    start = end - 1
    if start < 0 or page[start] & 0x80:
        return
    yield start
    while start and page[start - 1] & 0x80 and end - start < _MAX_VARINT - 1:
        start -= 1
        yield start


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number, and the position after the number."""
    value = 0
    for i in range(8):
        byte = data[position + i]
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, position + i + 1
    value = value << 8 | data[position + 8]
    return value - (1 << 64) if value >> 63 else value, position + 9


def _read_record(payload: bytes) -> tuple[Any, ...]:
    """Return the values of a record."""
    header_size, position = _read_varint(payload, 0)
    start = header_size
    values: list[Any] = []
    while position < header_size:
        kind, position = _read_varint(payload, position)
        value: Any
        if kind < len(_INTEGER_SIZES):
            stop = start + _INTEGER_SIZES[kind]
            value = int.from_bytes(payload[start:stop], "big", signed=True) if kind else None
        elif kind == _DOUBLE:
            stop = start + 8
            (value,) = struct.unpack(">d", payload[start:stop])
        elif kind in {_ZERO, _ONE}:
            stop, value = start, kind - _ZERO
        elif kind >= _FIRST_BLOB:  # a text is left as its bytes
            stop = start + (kind - _FIRST_BLOB) // 2
            value = payload[start:stop]
        else:
            raise ValueError(kind)
        values.append(value)
        if stop > len(payload):
            raise ValueError(stop)
        start = stop
    return tuple(values)
