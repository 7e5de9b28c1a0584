"""ParkedFetches: the fetches that wait for events, by topic and by deadline."""

from __future__ import annotations

import heapq
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trialbus.messages.topics import list_matching_patterns
from trialbus.protocol import limits
from trialbus.protocol.frames import Fetch

_FETCH_BYTES, _PATTERN_BYTES = 1024, 400  # beside the text
_STALE = 1024  # entries of answered fetches among the deadlines, at least


@dataclass(eq=False)
class Parked:
    """A fetch that waits for events, with peer, position and deadline."""

    peer: bytes
    fetch: Fetch
    offset: int
    deadline: float
    patterns: frozenset[str]
    answered: int = 0
    size: int = 0  # estimated memory in bytes
    serial: int = 0  # of `ParkedFetches.park`

    def __post_init__(self) -> None:
        self.size = estimate_size(self.fetch)


def estimate_size(fetch: Fetch) -> int:
    """Return about how many bytes of memory an open fetch takes."""
    texts = sum(map(sys.getsizeof, fetch.patterns))
    return _FETCH_BYTES + texts + _PATTERN_BYTES * len(fetch.patterns)


class ParkedFetches:
    """The parked fetches by pattern and by deadline.

    An event costs at most eight dictionary look-ups, however many subscribers are parked, and an
    idle hub pays nothing.
    """

    def __init__(self) -> None:
        self._by_pattern: dict[str, dict[Parked, None]] = defaultdict(dict)
        self._by_key: dict[tuple[bytes, int], Parked] = {}
        self._count: dict[bytes, int] = defaultdict(int)
        # No references to fetches: the entry of an answered fetch stays until the deadline.
        self._deadlines: list[tuple[float, int, tuple[bytes, int]]] = []
        self._serial = 0
        self._size = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def count(self, peer: bytes) -> int:
        """Return how many fetches of a peer are parked."""
        return self._count.get(peer, 0)

    def park(self, parked: Parked) -> None:
        """Park a fetch, in place of the peer's fetch with the same request number."""
        key = parked.peer, parked.fetch.request
        old = self._by_key.get(key)
        if old is not None:
            self._remove(old)
        self._by_key[key] = parked
        self._size += parked.size
        self._count[parked.peer] += 1
        for pattern in parked.patterns:
            self._by_pattern[pattern][parked] = None
        self._serial += 1
        parked.serial = self._serial
        heapq.heappush(self._deadlines, (parked.deadline, self._serial, key))
        if len(self._deadlines) > 2 * len(self._by_key) + _STALE:
            self._deadlines = [entry for entry in self._deadlines if self._find(entry)]
            heapq.heapify(self._deadlines)

    def take_matching(self, topics: Iterable[str]) -> list[Parked]:
        """Remove and return the fetches that wait for an event under any of the topics."""
        if not self._by_key:
            return []
        fetches: dict[Parked, None] = {}
        for topic in dict.fromkeys(topics):
            for pattern in list_matching_patterns(topic):
                fetches.update(self._by_pattern.get(pattern, ()))
        for parked in fetches:
            self._remove(parked)
        return list(fetches)

    def take_overdue(self, now: float) -> Iterator[Parked]:
        """Remove and yield every fetch after the deadline, and the next while all take too much."""
        while self._deadlines and (
            self._deadlines[0][0] <= now or self._size > limits.OPEN_FETCHES_BYTES
        ):
            parked = self._find(heapq.heappop(self._deadlines))
            if parked is not None:
                self._remove(parked)
                yield parked

    def next_deadline(self) -> float | None:
        """Return the deadline of the fetch that is overdue next; None without a fetch."""
        return self._deadlines[0][0] if self._deadlines else None

    def _find(self, entry: tuple[float, int, tuple[bytes, int]]) -> Parked | None:
        """Return the fetch of an entry of the deadlines; None if the fetch was answered."""
        _, serial, key = entry
        parked = self._by_key.get(key)
        return parked if parked is not None and parked.serial == serial else None

    def _remove(self, parked: Parked) -> None:
        del self._by_key[parked.peer, parked.fetch.request]
        self._size -= parked.size
        self._count[parked.peer] -= 1
        if not self._count[parked.peer]:
            del self._count[parked.peer]
        for pattern in parked.patterns:
            waiting = self._by_pattern[pattern]
            waiting.pop(parked, None)
            if not waiting:
                del self._by_pattern[pattern]
