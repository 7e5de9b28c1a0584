"""Damaged images of a ring: what becomes of the events of each when the ring is adopted."""

from __future__ import annotations

import random
from collections import Counter

from support.damage import cut_short, flip_bit, tear_write
from trialbus.client.ring_directory import adopt_rings, create_ring
from trialbus.client.shared_ring import RingEvent

PUBLISHER = bytes(range(16))
_HEADER = 64
_HEAD = 20  # of a record


class Image:
    """The content of a ring that has wrapped around, with the places of the ring's events."""

    def __init__(self, endpoint: str, chance: random.Random) -> None:
        ring = create_ring(endpoint, PUBLISHER, 4096)
        assert ring is not None
        self.events: list[RingEvent] = []
        for seq in range(1, 110):
            topic, body = f"evaluation_complete/s/{seq}", chance.randbytes(chance.randrange(8, 300))
            while not ring.append(seq, topic.encode(), body):
                ring.free(1)
                del self.events[0]
            self.events.append(RingEvent(seq, topic, body))
        ring.close()
        self.path = ring.path
        self.content = self.path.read_bytes()
        ends = [self.content.index(event.body) + len(event.body) for event in self.events]
        self.places = [
            (end - _HEAD - len(event.topic) - len(event.body), end)
            for event, end in zip(self.events, ends, strict=True)
        ]
        assert self.places != sorted(self.places)

    def count_before(self, first: int, stop: int) -> int:
        """Return how many of the oldest events lie outside of the bytes from `first` to `stop`."""
        if first < _HEADER:
            return 0
        hit = [start < stop and first < end for start, end in self.places]
        return [*hit, True].index(True)


def damage(image: Image, chance: random.Random) -> tuple[str, bytes, int]:
    """Return a kind of damage, the damaged content and how many events are before the damage."""
    kind = chance.choice(["flip", "tear", "cut"])
    if kind == "flip":
        content, at = flip_bit(image.content, chance)
        return kind, content, image.count_before(at, at + 1)
    if kind == "cut":
        content, at = cut_short(image.content, chance)
        return kind, content, image.count_before(at, len(image.content))
    content, at = tear_write(image.content, *image.places[-1])
    return kind, content, len(image.events) - 1


def read_damaged_images(endpoint: str, count: int, seed: int) -> Counter[str]:
    """Adopt damaged images, and count how many were harmless, noticed or silent."""
    chance = random.Random(seed)
    image = Image(endpoint, chance)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        kind, content, n_before = damage(image, chance)
        image.path.write_bytes(content)
        image.path.chmod(0o600)
        adopted = list(adopt_rings(endpoint))
        events = adopted[0][1] if adopted else []
        is_noticed = not adopted or adopted[0][0].damaged > 0
        is_altered = not set(events) <= set(image.events) or events != sorted(events)
        is_whole = events == image.events
        outcomes["harmless" if is_whole else "noticed" if is_noticed else "silent"] += 1
        outcomes["altered"] += is_altered
        outcomes["lost before the damage"] += events[:n_before] != image.events[:n_before]
        outcomes[kind] += 1
        outcomes["read after the damage"] += not is_whole and image.events[-1] in events
        for ring, _ in adopted:
            ring.close()
        for path in image.path.parent.iterdir():
            path.unlink()
    return outcomes
