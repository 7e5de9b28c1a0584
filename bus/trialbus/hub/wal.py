"""Wal: the frames of a SQLite write-ahead log, and the correction of flipped bits in frames.

SQLite reads a write-ahead log up to the first frame whose checksum does not match, so that a single
flipped bit would take away every later commit. The checksum is a linear function of the words of a
frame, so that the change of the checksum tells which bit it was; the high bits of several words
change the checksum alike, and then the frame is left as it is.

Source:
    https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from pathlib import Path
from typing import TypeAlias

_DB_HEADER = 100
_DEFAULT_PAGE_SIZE = 4096
_HEADER = 32
_HEADER_SUMMED = 24
_FRAME_HEADER = 24
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # and the order of the bytes in checksums
_VERSION = 3007000
_PAGE_SIZES = {512 << i for i in range(8)}
_MASK = 0xFFFFFFFF
_SUM = struct.Struct(">II")
_MAX_SEARCHES = 64  # for flipped bits, of some milliseconds each

_Sum: TypeAlias = tuple[int, int]


@dataclass
class Frame:
    """A frame of a write-ahead log: a page as a transaction wrote it."""

    position: int
    """Position of the frame in the file."""
    page: int
    """Number of the page, from 1."""
    is_commit: bool
    """Whether the frame is the last of a transaction."""
    is_verified: bool
    """Whether the checksum matches, perhaps after the correction of a bit."""


class Wal:
    """The content of a write-ahead log, in which flipped bits are corrected as far as possible.

    Args:
        content: Content of the file.
        page_size: Bytes of a page, for a file whose header cannot be read.
    """

    def __init__(self, content: bytes, page_size: int) -> None:
        self.content = bytearray(content)
        self.page_size = page_size
        self.n_corrected = 0  #: number of corrections
        self.frames: list[Frame] = []  #: frames of the present generation of the file
        self._n_searches = 0
        #: Words and checksums that match, by the position of the frame, where there are several.
        self._undecided: dict[int, list[tuple[tuple[int, ...], _Sum]]] = {}
        self._order = "<"
        seed = self._read_header()
        self._has_header = seed is not None
        self._read_frames(seed)
        self._fix_replaced_pages()

    @property
    def n_damaged(self) -> int:
        """Number of frames, and of headers, that do not match and cannot be corrected."""
        n_frames = sum(not frame.is_verified for frame in self.frames)
        return n_frames + (not self._has_header)

    @property
    def has_commits_behind_damage(self) -> bool:
        """Whether a transaction lies behind a damaged frame that was not of the last transaction.

        A power failure tears the frames of the last transaction alone.
        """
        intact = [frame.is_verified for frame in self.frames]
        if all(intact):
            return False
        behind = self.frames[intact.index(False) :]
        return sum(frame.is_commit and frame.is_verified for frame in behind) > 1

    def read_newest_pages(self) -> dict[int, bytes]:
        """Return the newest verified page of each number, up to the last commit."""
        commits = [i for i, f in enumerate(self.frames) if f.is_verified and f.is_commit]
        frames = self.frames[: commits[-1] + 1] if commits else []
        return {f.page: self._read_page(f.position) for f in frames if f.is_verified}

    def read_pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the content of every page, of former generations too, oldest first.

        The pages of damaged frames are among them.
        """
        present = {frame.position for frame in self.frames}
        positions = list(self._positions())
        for position in sorted(positions, key=lambda position: position in present):
            page = int.from_bytes(self.content[position : position + 4], "big")
            yield page, self._read_page(position)

    def _read_page(self, position: int) -> bytes:
        start = position + _FRAME_HEADER
        return bytes(self.content[start : start + self.page_size])

    def _positions(self) -> range:
        size = _FRAME_HEADER + self.page_size
        return range(_HEADER, len(self.content) - size + 1, size)

    def _read_header(self) -> _Sum | None:
        """Correct the header; return the checksum that the first frame continues, or None."""
        if len(self.content) < _HEADER:
            return None
        header = bytes(self.content[:_HEADER_SUMMED])
        stored = _SUM.unpack_from(self.content, _HEADER_SUMMED)
        for order in ("<", ">"):  # the magic number, which tells the order, may be damaged
            words = struct.unpack(f"{order}6I", header)
            for fixed, sum_ in self._match(words, (0, 0), stored):
                data = struct.pack(f"{order}6I", *fixed)
                magic, version, page_size = struct.unpack_from(">III", data)
                is_header = _MAGIC.get(magic) == order and version == _VERSION
                is_header = is_header and page_size in _PAGE_SIZES
                if not is_header or (fixed != words and data[16:24] != self._find_salts()):
                    continue
                self._order, self.page_size = order, page_size
                is_intact = fixed == words and sum_ == stored
                if is_intact or self._may_precede(_HEADER, sum_):
                    self._replace(0, data + _SUM.pack(*sum_))
                    return sum_
        return None

    def _read_frames(self, seed: _Sum | None) -> None:
        salts = bytes(self.content[16:24]) if seed is not None else self._find_salts()
        is_verified = seed is not None
        for position in self._positions():
            is_present = self._read_salts(position) == salts
            # The salts are not in the checksum: only behind a verified frame is a frame with
            # other salts known to be of this generation.
            sum_ = None
            if seed is not None and (is_present or is_verified):
                sum_ = self._check_frame(position, seed, may_correct=is_present)
            is_verified = sum_ is not None
            if is_verified and not is_present:
                self._replace(position + 8, salts)
            page, n_pages = _SUM.unpack_from(self.content, position)
            self.frames.append(Frame(position, page, n_pages > 0, is_verified))
            seed = sum_ or _SUM.unpack_from(self.content, position + 16)
        while self.frames and not self.frames[-1].is_verified:
            if self._read_salts(self.frames[-1].position) == salts:
                break
            self.frames.pop()

    def _find_salts(self) -> bytes:
        """Return the salts that most frames have."""
        counts = Counter(map(self._read_salts, self._positions()))
        return max(counts, key=lambda salts: counts[salts], default=b"")

    def _read_salts(self, position: int) -> bytes:
        return bytes(self.content[position + 8 : position + 16])

    def _check_frame(self, position: int, seed: _Sum, *, may_correct: bool) -> _Sum | None:
        """Return the checksum of a frame that matches, perhaps after a correction, or None."""
        words, stored = self._read_frame(position)
        if _add(words, seed) == stored:
            return stored
        if not may_correct:
            return None
        matches = self._match(words, seed, stored)
        if len(matches) > 1:  # the next frame tells whether the checksum is right
            following = position + _FRAME_HEADER + self.page_size
            matches = [match for match in matches if self._may_precede(following, match[1])]
        if len(matches) > 1:
            self._undecided[position] = matches
            return None
        for fixed, sum_ in matches:
            self._fix(position, fixed, sum_)
            return sum_
        return None

    def _may_precede(self, position: int, sum_: _Sum) -> bool:
        """Tell whether the frame at a position continues a checksum, or does not exist."""
        if position not in self._positions():
            return True
        words, stored = self._read_frame(position)
        return _add(words, sum_) == stored

    def _fix(self, position: int, words: tuple[int, ...], sum_: _Sum) -> None:
        data = struct.pack(f"{self._order}{len(words)}I", *words)
        self._replace(position, data[:8] + self._read_salts(position) + _SUM.pack(*sum_) + data[8:])

    def _fix_replaced_pages(self) -> None:
        """Correct any bit that may be the flipped one, where a later frame replaces the page."""
        later: set[int] = set()
        for frame in reversed(self.frames):
            matches = self._undecided.get(frame.position)
            if matches and frame.page in later and len({words[:2] for words, _ in matches}) == 1:
                self._fix(frame.position, *matches[0])
                frame.is_verified = True
            if frame.is_verified:
                later.add(frame.page)

    def _read_frame(self, position: int) -> tuple[tuple[int, ...], _Sum]:
        """Return the words of a frame that are in the checksum, and the checksum in the frame."""
        start = position + _FRAME_HEADER
        data = self.content[position : position + 8] + self.content[start : start + self.page_size]
        words = struct.unpack(f"{self._order}{len(data) // 4}I", data)
        return words, _SUM.unpack_from(self.content, position + 16)

    def _match(
        self, words: tuple[int, ...], seed: _Sum, stored: _Sum
    ) -> list[tuple[tuple[int, ...], _Sum]]:
        """Return words and checksums that match and differ from the file by at most one bit."""
        actual = _add(words, seed)
        if actual == stored:
            return [(words, stored)]
        if self._n_searches >= _MAX_SEARCHES:
            return []
        self._n_searches += 1
        matches: list[tuple[tuple[int, ...], _Sum]] = []
        if (actual[0] ^ stored[0]).bit_count() + (actual[1] ^ stored[1]).bit_count() == 1:
            matches.append((words, actual))
        for i, word in _find_flips(words, actual, stored):
            matches.append(((*words[:i], word, *words[i + 1 :]), stored))
        return matches

    def _replace(self, position: int, data: bytes) -> None:
        stop = position + len(data)
        if bytes(self.content[position:stop]) != data:
            self.content[position:stop] = data
            self.n_corrected += 1


def read_wal(database: Path) -> Wal | None:
    """Return the write-ahead log of a database; None without one.

    Raises:
        OSError: A file cannot be read.
    """
    path = name_wal(database)
    if not path.exists():
        return None
    header = b""
    if database.exists():
        with database.open("rb") as file:
            header = file.read(_DB_HEADER)
    content = path.read_bytes()
    return Wal(content, read_page_size(header)) if content else None


def is_wal_alone(database: Path) -> bool:
    """Tell whether a database is gone or empty, and its write-ahead log is not.

    SQLite deletes the write-ahead log of an empty database as soon as it opens the database, to
    read too.
    """
    path = name_wal(database)
    has_wal = path.is_file() and path.stat().st_size > 0
    return has_wal and not (database.exists() and database.stat().st_size)


def name_wal(database: Path) -> Path:
    """Return the file of a database's write-ahead log."""
    return database.with_name(f"{database.name}-wal")


def read_page_size(header: bytes) -> int:
    """Return the size of a database's pages, from the beginning of the file."""
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    return size if size in _PAGE_SIZES else _DEFAULT_PAGE_SIZE


@lru_cache(8)
def _weights(n_words: int) -> tuple[list[int], list[int], tuple[_Sum, _Sum]]:
    """Return the weights of words in both halves of a checksum, and those of the seed.

    Two words `x` and `y` at a time, the checksum goes on from `(s, t)` to `(s + t + x, s + 2t + x +
    y)`.
    """
    firsts: list[int] = []
    seconds: list[int] = []
    (a, b), (c, d) = (1, 0), (0, 1)  # what the rest makes of a change by then
    for _ in range(n_words // 2):
        firsts += [b, (a + b) & _MASK]
        seconds += [d, (c + d) & _MASK]
        (a, b), (c, d) = (
            ((a + b) & _MASK, (a + 2 * b) & _MASK),
            ((c + d) & _MASK, (c + 2 * d) & _MASK),
        )
    return firsts[::-1], seconds[::-1], ((a, b), (c, d))


def _add(words: Sequence[int], seed: _Sum) -> _Sum:
    """Return the checksum of words that continues another checksum."""
    firsts, seconds, ((a, b), (c, d)) = _weights(len(words))
    s, t = seed
    return (
        (sum(map(mul, firsts, words)) + a * s + b * t) & _MASK,
        (sum(map(mul, seconds, words)) + c * s + d * t) & _MASK,
    )


def _find_flips(words: Sequence[int], actual: _Sum, stored: _Sum) -> Iterator[tuple[int, int]]:
    """Yield the index and the right value of each word with which one bit explains a checksum."""
    missing = (stored[0] - actual[0]) & _MASK, (stored[1] - actual[1]) & _MASK
    firsts, seconds, _ = _weights(len(words))
    for i, word in enumerate(words):
        first, second = firsts[i], seconds[i]
        for bit in range(32):
            change = -(1 << bit) if word >> bit & 1 else 1 << bit
            if (change * first) & _MASK == missing[0] and (change * second) & _MASK == missing[1]:
                yield i, word + change
