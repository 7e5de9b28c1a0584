"""ParkedFetches: the fetches that wait for events, by topic and by deadline."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trialbus.messages.topics import list_matching_patterns
from trialbus.protocol.frames import Fetch


@dataclass(eq=False)
class Parked:
    """A fetch that waits for events, with peer, position and deadline."""

    peer: bytes
    fetch: Fetch
    offset: int
    deadline: float
    patterns: frozenset[str]
    answered: int = 0


class ParkedFetches:
    """The parked fetches by pattern and by deadline.

    An event costs at most eight dictionary look-ups, however many subscribers are parked, and an
    idle hub pays nothing.
    """

    def __init__(self) -> None:
        self._by_pattern: dict[str, dict[Parked, None]] = defaultdict(dict)
        self._by_key: dict[tuple[bytes, int], Parked] = {}
        self._count: dict[bytes, int] = defaultdict(int)
        self._deadlines: list[tuple[float, int, Parked]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def count(self, peer: bytes) -> int:
        """Return how many fetches of a peer are parked."""
        return self._count.get(peer, 0)

    def park(self, parked: Parked) -> None:
        """Park a fetch, in place of the peer's fetch with the same request number."""
        old = self._by_key.get((parked.peer, parked.fetch.request))
        if old is not None:
            self._remove(old)
        self._by_key[parked.peer, parked.fetch.request] = parked
        self._count[parked.peer] += 1
        for pattern in parked.patterns:
            self._by_pattern[pattern][parked] = None
        self._serial += 1
        heapq.heappush(self._deadlines, (parked.deadline, self._serial, parked))

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
        """Remove and yield every fetch after the deadline."""
        while self._deadlines and self._deadlines[0][0] <= now:
            parked = heapq.heappop(self._deadlines)[2]
            if self._by_key.get((parked.peer, parked.fetch.request)) is parked:
                self._remove(parked)
                yield parked

    def next_deadline(self) -> float | None:
        """Return the deadline of the fetch that is overdue next; None without a fetch."""
        return self._deadlines[0][0] if self._deadlines else None

    def _remove(self, parked: Parked) -> None:
        del self._by_key[parked.peer, parked.fetch.request]
        self._count[parked.peer] -= 1
        if not self._count[parked.peer]:
            del self._count[parked.peer]
        for pattern in parked.patterns:
            waiting = self._by_pattern[pattern]
            waiting.pop(parked, None)
            if not waiting:
                del self._by_pattern[pattern]
