"""Outbox: what a publisher accepted and the hub has not acknowledged yet."""

from __future__ import annotations

import itertools
import threading
from collections import deque

import msgspec

from trialbus.client.shared_ring import Ring
from trialbus.protocol.frames import BATCH_BYTES, BATCH_EVENTS


class Outbox:
    """A bounded queue of numbered events.

    The training thread puts events in; the link's thread takes batches out to send, drops what is
    acknowledged, and goes back to the oldest unacknowledged event when told to. All methods may
    be called from any thread.

    Args:
        capacity: Largest number of events held.
        ring: Keeps the events where they outlive this process; it bounds them, too.
        events: What a ring that was adopted holds already.
        last: Sequence number of the newest of them.
    """

    def __init__(
        self,
        capacity: int,
        ring: Ring | None = None,
        events: list[tuple[str, bytes]] | None = None,
        last: int = 0,
    ) -> None:
        self.capacity = capacity
        self.last = last  #: sequence number of the newest event; 0 before the first
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self._ring = ring
        self._events: deque[tuple[str, bytes]] = deque(events or [])
        self._sent = 0  # how many of the oldest events are under way

    def __len__(self) -> int:
        return len(self._events)

    @property
    def base(self) -> int:
        """Sequence number of the oldest event held; one past the newest when it is empty."""
        return self.last - len(self._events) + 1

    def put(self, topic: str, body: bytes) -> int | None:
        """Take an event and return its sequence number; None when there is no room."""
        with self._lock:
            if len(self._events) >= self.capacity:
                return None
            seq = self.last + 1
            if self._ring is not None and not self._ring.append(seq, topic.encode(), body):
                return None
            self._events.append((topic, body))
            self.last = seq
            return seq

    def drop_oldest(self) -> bool:
        """Give up the oldest event that is not under way; False when there is none."""
        with self.changed:
            if self._sent or not self._events:
                return False
            self._free(1)
            return True

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a quarter of what is held now is gone; False if it is not in time.

        Not until the first room: each turn between two threads costs as much as many events.
        """
        with self.changed:
            enough = len(self._events) * 3 // 4
            return self.changed.wait_for(lambda: len(self._events) <= enough, timeout_s)

    def batch(self, window: int) -> tuple[int, list[tuple[str, msgspec.Raw]]]:
        """Return the next unsent events with the first one's number, without marking them sent.

        At most `BATCH_EVENTS` and about `BATCH_BYTES`, and none beyond `window` events under way.
        """
        with self.changed:
            room = min(BATCH_EVENTS, window - self._sent)
            first = self.base + self._sent
            events: list[tuple[str, msgspec.Raw]] = []
            size = 0
            for topic, body in itertools.islice(
                self._events, self._sent, self._sent + max(room, 0)
            ):
                size += len(body)
                if events and size > BATCH_BYTES:
                    break
                events.append((topic, msgspec.Raw(body)))
            return first, events

    def mark_sent(self, count: int) -> None:
        """Note that the next `count` unsent events are under way."""
        with self.changed:
            self._sent += count

    def go_back(self) -> None:
        """Treat everything as unsent."""
        with self.changed:
            self._sent = 0

    def acknowledge(self, last: int) -> bool:
        """Drop everything up to `last`; True if that was progress."""
        with self.changed:
            count = min(last - self.base + 1, len(self._events))
            if count <= 0:
                return False
            self._free(count)
            self._sent = max(0, self._sent - count)
            self.changed.notify_all()
            return True

    def close(self) -> None:
        """Leave what is left in the ring to whoever adopts it."""
        with self.changed:
            if self._ring is not None:
                self._ring.close()
                self._ring = None

    def _free(self, count: int) -> None:
        for _ in range(count):
            self._events.popleft()
        if self._ring is not None:
            self._ring.free(count)
