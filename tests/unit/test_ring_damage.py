"""Crash images of a ring: no altered event is read, and no loss goes unnoticed."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from support.damage import cut_short, flip_bit, tear_write
from support.rings import use_ring_directory
from trialbus.client import shared_ring
from trialbus.client.ring_directory import adopt_rings, create_ring
from trialbus.client.shared_ring import RingEvent

ENDPOINT = "ipc:///test-ring-damage"
PUBLISHER = bytes(range(16))
_HEADER = 64
_HEAD = 20  # of a record


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_ring_directory(tmp_path, monkeypatch)


class Image:
    """The content of a ring that has wrapped around, with the places of the ring's events."""

    def __init__(self, chance: random.Random) -> None:
        ring = create_ring(ENDPOINT, PUBLISHER, 4096)
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


def read_damaged_images(count: int, seed: int) -> Counter[str]:
    """Adopt damaged images, and count how many were harmless, noticed or silent."""
    chance = random.Random(seed)
    image = Image(chance)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        kind, content, n_before = damage(image, chance)
        image.path.write_bytes(content)
        image.path.chmod(0o600)
        adopted = list(adopt_rings(ENDPOINT))
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


def test_of_a_thousand_damaged_images_none_delivers_an_altered_event_or_loses_one_silently() -> (
    None
):
    outcomes = read_damaged_images(1000, seed=1)
    assert outcomes["silent"] == outcomes["altered"] == outcomes["lost before the damage"] == 0
    assert outcomes["noticed"] > 600
    assert outcomes["read after the damage"] > 100
    assert min(outcomes[kind] for kind in ("flip", "tear", "cut")) > 200


def test_without_checksums_damaged_images_deliver_altered_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check_nothing(*_: object) -> int:
        return 0

    monkeypatch.setattr(shared_ring, "crc32", check_nothing)
    outcomes = read_damaged_images(200, seed=1)
    assert outcomes["silent"] > 0
    assert outcomes["altered"] > 0
