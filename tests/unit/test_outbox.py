"""The outbox keeps every accepted event until the acknowledgement, also in shared memory."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trialbus.client.outbox import WINDOW_EVENTS, Outbox
from trialbus.client.ring_directory import adopt_rings, create_ring, locate_ring_directory
from trialbus.client.ring_keeper import RingKeeper
from trialbus.client.shared_ring import SharedRing
from trialbus.protocol.limits import BATCH_BYTES, BATCH_EVENTS, MAX_WINDOW, MIN_WINDOW

ENDPOINT = f"ipc:///test-outbox-{os.getpid()}"


@pytest.fixture(params=["memory", "shared ring"])
def ring(request: pytest.FixtureRequest) -> Iterator[SharedRing | None]:
    if request.param == "memory":
        yield None
        return
    ring = create_ring(ENDPOINT, b"p" * 16)
    assert ring is not None
    yield ring
    shutil.rmtree(locate_ring_directory(ENDPOINT), ignore_errors=True)


def fill(outbox: Outbox, count: int) -> None:
    for _ in range(count):
        assert outbox.put("t/s/0", b"%d" % (outbox.last + 1)) == outbox.last


def read_batch(outbox: Outbox) -> list[int]:
    """Return the sequence numbers of the next batch, and check that the bodies match."""
    first, batch = outbox.next_batch()
    numbers = list(range(first, first + len(batch)))
    assert [bytes(body) for _, body in batch] == [b"%d" % number for number in numbers]
    return numbers


def send_batch(outbox: Outbox, count: int | None = None) -> int:
    """Mark the next batch, or the first `count` events of the batch, as sent; return how many."""
    _, batch = outbox.next_batch()
    outbox.mark_sent(batch[:count])
    return len(batch[:count])


def test_events_are_numbered_from_one_and_read_in_order(ring: SharedRing | None) -> None:
    outbox = Outbox(100, ring)
    assert (outbox.last, outbox.base, len(outbox)) == (0, 1, 0)
    assert read_batch(outbox) == []
    fill(outbox, 3)
    assert read_batch(outbox) == [1, 2, 3]
    assert (outbox.last, outbox.base, len(outbox)) == (3, 1, 3)


def test_a_batch_is_read_again_until_it_is_marked_as_sent(ring: SharedRing | None) -> None:
    outbox = Outbox(100, ring)
    fill(outbox, 3)
    assert read_batch(outbox) == read_batch(outbox) == [1, 2, 3]
    send_batch(outbox, 2)
    assert read_batch(outbox) == [3]
    outbox.go_back()
    assert read_batch(outbox) == [1, 2, 3]


def test_acknowledged_events_are_removed_and_the_rest_is_sent_once(
    ring: SharedRing | None,
) -> None:
    outbox = Outbox(100, ring)
    fill(outbox, 5)
    send_batch(outbox, 4)
    assert outbox.acknowledge(3)
    assert (outbox.base, len(outbox)) == (4, 2)
    assert read_batch(outbox) == [5]
    outbox.go_back()
    assert read_batch(outbox) == [4, 5]


def test_an_acknowledgement_of_what_was_acknowledged_before_removes_nothing(
    ring: SharedRing | None,
) -> None:
    outbox = Outbox(100, ring)
    fill(outbox, 3)
    assert outbox.acknowledge(2)
    assert not outbox.acknowledge(2)
    assert not outbox.acknowledge(0)
    assert len(outbox) == 1


def test_an_acknowledgement_beyond_the_newest_event_empties_the_outbox(
    ring: SharedRing | None,
) -> None:
    outbox = Outbox(100, ring)
    fill(outbox, 3)
    assert outbox.acknowledge(99)
    assert (len(outbox), outbox.last, outbox.base) == (0, 3, 4)
    fill(outbox, 1)
    assert read_batch(outbox) == [4]


def test_no_more_events_than_the_window_are_sent_and_unacknowledged(
    ring: SharedRing | None,
) -> None:
    outbox = Outbox(WINDOW_EVENTS + 10, ring)
    outbox.window = MAX_WINDOW
    fill(outbox, WINDOW_EVENTS + 10)
    while send_batch(outbox):
        pass
    outbox.acknowledge(WINDOW_EVENTS - 1)
    assert read_batch(outbox) == list(range(WINDOW_EVENTS + 1, WINDOW_EVENTS + 11))
    outbox.go_back()
    assert read_batch(outbox)[0] == WINDOW_EVENTS


def test_no_more_bytes_than_the_window_are_sent_and_unacknowledged() -> None:
    outbox = Outbox(100)
    body = bytes(MIN_WINDOW // 10)
    for _ in range(40):
        outbox.put("t/s/0", body)
    sent = [send_batch(outbox) for _ in range(20)]
    assert sum(sent) == 9
    assert outbox.acknowledge(2)
    assert send_batch(outbox) == 2
    assert send_batch(outbox) == 0
    outbox.go_back()
    assert outbox.next_batch()[0] == 3
    assert outbox.acknowledge(20)  # more than is sent on this connection
    assert sum(send_batch(outbox) for _ in range(20)) == 9


def test_an_event_larger_than_the_window_is_sent_alone() -> None:
    outbox = Outbox(10)
    for body in (b"", bytes(2 * MIN_WINDOW), b""):
        outbox.put("t/s/0", body)
    assert send_batch(outbox) == 1
    assert send_batch(outbox) == 0
    outbox.acknowledge(1)
    assert send_batch(outbox) == 1
    assert send_batch(outbox) == 0
    outbox.acknowledge(2)
    assert send_batch(outbox) == 1


def test_a_batch_is_bounded_in_events_and_in_bytes() -> None:
    outbox = Outbox(10 * BATCH_EVENTS)
    fill(outbox, 2 * BATCH_EVENTS)
    assert len(read_batch(outbox)) == BATCH_EVENTS
    large = Outbox(10)
    for _ in range(3):
        large.put("t/s/0", bytes(BATCH_BYTES // 2 + 1))
    assert len(large.next_batch()[1]) == 1
    huge = Outbox(10)
    huge.put("t/s/0", bytes(2 * BATCH_BYTES))
    assert len(huge.next_batch()[1]) == 1  # an event that exceeds the bound travels alone


def test_a_full_outbox_accepts_an_event_again_after_an_acknowledgement(
    ring: SharedRing | None,
) -> None:
    outbox = Outbox(3, ring)
    fill(outbox, 3)
    assert outbox.put("t/s/0", b"4") is None
    assert outbox.last == 3
    outbox.acknowledge(1)
    assert outbox.put("t/s/0", b"4") == 4


def test_the_size_of_the_shared_ring_bounds_the_outbox_too() -> None:
    ring = create_ring(ENDPOINT, b"p" * 16, 256)
    assert ring is not None
    outbox = Outbox(1000, ring)
    while outbox.put("t/s/0", bytes(20)) is not None:
        pass
    n_held = len(outbox)
    assert 0 < n_held < 10
    assert outbox.last == n_held
    outbox.acknowledge(1)
    assert outbox.put("t/s/0", bytes(20)) == n_held + 1
    outbox.acknowledge(outbox.last)
    outbox.close()
    shutil.rmtree(locate_ring_directory(ENDPOINT), ignore_errors=True)


def test_only_an_outbox_without_sent_events_drops_its_oldest(ring: SharedRing | None) -> None:
    outbox = Outbox(3, ring)
    assert not outbox.drop_oldest()
    fill(outbox, 3)
    assert outbox.drop_oldest()
    assert outbox.put("t/s/0", b"4") == 4
    assert read_batch(outbox) == [2, 3, 4]
    send_batch(outbox, 1)
    assert not outbox.drop_oldest()
    outbox.go_back()
    assert outbox.drop_oldest()
    assert read_batch(outbox) == [3, 4]


def test_waiting_for_room_ends_when_a_quarter_is_acknowledged() -> None:
    outbox = Outbox(8)
    fill(outbox, 8)
    assert not outbox.wait_for_room(0.0)
    outbox.acknowledge(1)
    assert not outbox.wait_for_room(0.0)
    waiting = threading.Thread(target=outbox.wait_for_room, args=(30.0,))
    waiting.start()
    outbox.acknowledge(8)
    waiting.join(20)
    assert not waiting.is_alive()


def test_the_shared_ring_holds_exactly_the_unacknowledged_events_when_the_outbox_closes() -> None:
    ring = create_ring(ENDPOINT, b"p" * 16)
    assert ring is not None
    outbox = Outbox(100, ring)
    fill(outbox, 5)
    send_batch(outbox, 5)
    outbox.acknowledge(2)
    outbox.close()
    ((adopted, events),) = adopt_rings(ENDPOINT)
    assert [event.seq for event in events] == [3, 4, 5]
    heir = Outbox(3, adopted, [(event.topic, event.body) for event in events], last=5)
    assert read_batch(heir) == [3, 4, 5]
    heir.acknowledge(5)
    heir.close()
    assert list(adopt_rings(ENDPOINT)) == []
    shutil.rmtree(locate_ring_directory(ENDPOINT), ignore_errors=True)


def remove(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace_by_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


@pytest.mark.parametrize("damage", [remove, remove_folder, replace_by_copy])
def test_a_ring_whose_file_is_gone_is_made_again_with_what_is_unacknowledged(
    damage: Callable[[Path], None],
) -> None:
    publisher = b"k" * 16
    ring = create_ring(ENDPOINT, publisher, 4096)
    assert ring is not None
    outbox = Outbox(100, ring)
    keeper = RingKeeper(ENDPOINT, publisher, outbox)
    for _ in range(40):  # several laps of the ring
        fill(outbox, 5)
        send_batch(outbox, 5)
        outbox.acknowledge(outbox.last)
    while outbox.put("t/s/0", b"%d" % (outbox.last + 1)):  # until the ring is full
        pass
    first, last = outbox.base, outbox.last
    assert not outbox.has_lost_ring
    damage(ring.path)
    assert outbox.has_lost_ring
    keeper.work(lambda frame: True, 0.0)
    assert not outbox.has_lost_ring
    assert read_batch(outbox) == list(range(first, last + 1))
    send_batch(outbox, 3)
    outbox.acknowledge(first + 2)
    fill(outbox, 1)
    outbox.close()
    ((adopted, events),) = adopt_rings(ENDPOINT)
    assert [event.seq for event in events] == list(range(first + 3, last + 2))
    assert adopted.damaged == 0
    adopted.close()
    shutil.rmtree(locate_ring_directory(ENDPOINT), ignore_errors=True)


def test_an_outbox_whose_ring_cannot_be_made_again_goes_on_in_memory() -> None:
    ring = create_ring(ENDPOINT, b"k" * 16)
    assert ring is not None
    outbox = Outbox(100, ring)
    fill(outbox, 3)
    ring.path.unlink()
    outbox.restore_ring(lambda capacity, base: None)
    assert not outbox.survives
    fill(outbox, 2)
    assert read_batch(outbox) == [1, 2, 3, 4, 5]
    outbox.close()
    shutil.rmtree(locate_ring_directory(ENDPOINT), ignore_errors=True)
