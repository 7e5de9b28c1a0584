"""The outbox: events that a publisher accepted and the hub has not acknowledged yet."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from trialbus.client.shared_ring import SharedRing
from trialbus.protocol import limits
from trialbus.protocol.limits import BATCH_BYTES, BATCH_EVENTS

#: Bounds of what is sent and unacknowledged, and waits in the memory of a hub that is stalled.
WINDOW_EVENTS = 4096

Batch: TypeAlias = list[tuple[str, msgspec.Raw]]


class Outbox:
    """A bounded queue of numbered events.

    The training thread puts events in. The link's thread reads batches to send, removes
    acknowledged events and goes back to the oldest unacknowledged event to send again. All
    methods may be called from any thread.

    Args:
        capacity: Largest number of events held.
        ring: Shared memory in which the events outlive this process; its size is another bound.
        events: Topic and body of every event that an adopted ring holds.
        last: Sequence number of the newest of `events`.
    """

    def __init__(
        self,
        capacity: int,
        ring: SharedRing | None = None,
        events: list[tuple[str, bytes]] | None = None,
        last: int = 0,
    ) -> None:
        self.capacity = capacity
        self.last = last  #: sequence number of the newest event; 0 before the first
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self._ring = ring
        self._events: deque[tuple[str, bytes]] = deque(events or [])
        self._n_sent = 0  # how many of the oldest events are sent and unacknowledged
        self._n_bytes_sent = 0  # their size
        self.window = limits.MIN_WINDOW  #: largest number of bytes sent and unacknowledged

    def __len__(self) -> int:
        return len(self._events)

    @property
    def n_sent(self) -> int:
        """Number of events that are sent and unacknowledged."""
        return self._n_sent

    @property
    def base(self) -> int:
        """Sequence number of the oldest event held; `last + 1` when the outbox is empty."""
        return self.last - len(self._events) + 1

    def put(self, topic: str, body: bytes) -> int | None:
        """Append an event and return the sequence number, or None when the outbox is full."""
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
        """Drop the oldest event; False when the outbox is empty or has sent events."""
        with self.changed:
            if self._n_sent or not self._events:
                return False
            self._free(1)
            return True

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a quarter of the events held now is acknowledged; False on a timeout.

        A publisher that woke for every free place would switch threads for every event.
        """
        with self.changed:
            n_allowed = len(self._events) * 3 // 4
            return self.changed.wait_for(lambda: len(self._events) <= n_allowed, timeout_s)

    def next_batch(self, max_events: int = BATCH_EVENTS) -> tuple[int, Batch]:
        """Return the sequence number of the first unsent event, and the next events to send.

        A batch holds at most `max_events` events and about `BATCH_BYTES`. At most `WINDOW_EVENTS`
        events and `window` bytes, and always one event, may be sent and unacknowledged. `mark_sent`
        has to follow when the batch was sent.
        """
        with self.changed:
            room = max(0, min(max_events, WINDOW_EVENTS - self._n_sent))
            n_bytes_free = self.window - self._n_bytes_sent
            first = self.base + self._n_sent
            batch: Batch = []
            size = 0
            for topic, body in itertools.islice(self._events, self._n_sent, self._n_sent + room):
                size += len(topic) + len(body)
                if (batch and size > BATCH_BYTES) or (
                    (batch or self._n_sent) and size > n_bytes_free
                ):
                    break
                batch.append((topic, msgspec.Raw(body)))
            return first, batch

    def mark_sent(self, batch: Batch) -> None:
        """Mark the next unsent events, a batch of `next_batch`, as sent."""
        with self.changed:
            self._n_sent += len(batch)
            self._n_bytes_sent += sum([len(topic) + len(body) for topic, body in batch])

    def go_back(self) -> None:
        """Mark every event as unsent."""
        with self.changed:
            self._n_sent = self._n_bytes_sent = 0

    def acknowledge(self, last: int) -> bool:
        """Remove every event up to sequence number `last`; False when no event was removed."""
        with self.changed:
            count = min(last - self.base + 1, len(self._events))
            if count <= 0:
                return False
            n_sent = min(count, self._n_sent)
            self._n_bytes_sent -= sum(
                [len(topic) + len(body) for topic, body in itertools.islice(self._events, n_sent)]
            )
            self._n_sent -= n_sent
            self._free(count)
            self.changed.notify_all()
            return True

    @property
    def survives(self) -> bool:
        """Whether the events outlive this process, in shared memory."""
        return self._ring is not None

    @property
    def has_lost_ring(self) -> bool:
        """Whether the ring's file was removed or replaced, so that no adopter would find it."""
        return self._ring is not None and not self._ring.is_in_place

    def restore_ring(self, create: Callable[[int, int], SharedRing | None]) -> None:
        """Put the events into a new ring, in place of a ring whose file was removed.

        Args:
            create: Creates a ring of a capacity, whose first event has a sequence number.
        """
        with self.changed:
            if self._ring is None:
                return
            ring = create(self._ring.capacity, self.base)
            if ring is not None:
                for seq, (topic, body) in enumerate(self._events, self.base):
                    ring.append(seq, topic.encode(), body)  # as many bytes as before: they fit
            self._ring.close()
            self._ring = ring

    def close(self) -> None:
        """Close the ring; the next adopter on this host sends the events left in the ring."""
        with self.changed:
            if self._ring is not None:
                self._ring.close()
                self._ring = None

    def _free(self, count: int) -> None:
        for _ in range(count):
            self._events.popleft()
        if self._ring is not None:
            self._ring.free(count)
