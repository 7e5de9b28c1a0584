"""A sender sends an outbox in order, and resends lost events, on a simulated clock."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from trialbus.client.outbox import Outbox
from trialbus.client.sender import Sender
from trialbus.protocol import frames, limits

PUBLISHER = b"p" * 16
LOG = frames.Welcome(frames.PROTOCOL, "log", end=0)


class Session:
    """A sender with a simulated clock, and a connection that a test can break."""

    def __init__(self, count: int) -> None:
        self.outbox = Outbox(100_000)
        self.sender = Sender(PUBLISHER, self.outbox)
        self.now = 0.0
        self.is_connected = True
        self.next_call: float | None = None
        self._sent: list[int] = []
        self.newest: frames.Publish
        self.put(count)
        self.sender.on_welcome(LOG)

    def put(self, count: int) -> None:
        for _ in range(count):
            self.outbox.put("t/s/0", b"\x80")

    def send(self, frame: Any) -> bool:
        assert isinstance(frame, frames.Publish)
        assert frame.base == self.outbox.base
        self.newest = frame
        if self.is_connected:
            self._sent += range(frame.first, frame.first + len(frame.events))
        return self.is_connected

    def work(self, after_s: float = 0.0) -> list[int]:
        """Advance the clock, let the sender work, and return the numbers of the events sent."""
        self.now += after_s
        self._sent = []
        self.next_call = self.sender.work(self.send, self.now)
        return self._sent

    def acknowledge(
        self, last: int, publisher: bytes = PUBLISHER, window: int = limits.MAX_WINDOW
    ) -> None:
        self.sender.on_frame(frames.Ack(publisher, last, window))

    def refuse(self, code: int) -> None:
        self.sender.on_frame(frames.Refused(code, "disk is full", PUBLISHER.hex()))


def test_every_event_is_sent_once_and_new_ones_after_them() -> None:
    session = Session(3)
    assert session.work() == [1, 2, 3]
    session.put(2)
    assert session.work(after_s=0.1) == [4, 5]
    session.acknowledge(5)
    assert session.work(after_s=100.0) == []
    assert session.next_call is None


def test_the_oldest_event_is_sent_again_after_waits_that_double_up_to_a_bound() -> None:
    session = Session(2)
    session.work()
    waits: list[float] = []
    for _ in range(6):
        assert session.next_call is not None
        waits.append(session.next_call - session.now)
        assert session.work(after_s=waits[-1] - 0.01) == []
        assert session.work(after_s=0.02) == [1]
    assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0, 8.0])


def test_an_acknowledgement_is_progress_that_begins_the_wait_anew() -> None:
    session = Session(3)
    session.work()
    assert session.work(after_s=1.1) == [1]
    session.now += 1.9
    session.acknowledge(1)
    assert session.work() == [2, 3]
    assert session.next_call == pytest.approx(session.now + 1.0)
    assert session.work(after_s=1.1) == [2]


def test_a_hub_that_is_stalled_gets_one_event_again_and_no_new_one() -> None:
    session = Session(3)
    session.work()
    session.put(2)
    assert session.work() == [4, 5]
    assert session.work(after_s=1.1) == [1]
    session.put(1)
    assert session.work() == []
    session.acknowledge(5)  # the first copies were only late
    assert session.work() == [6]


def test_a_new_connection_gets_every_event_while_a_hub_is_probed() -> None:
    session = Session(3)
    session.work()
    assert session.work(after_s=1.1) == [1]
    session.sender.on_welcome(LOG)
    assert session.work() == [1, 2, 3]


def test_an_acknowledgement_for_another_publisher_changes_nothing() -> None:
    session = Session(1)
    session.work()
    session.acknowledge(1, publisher=b"another")
    assert len(session.outbox) == 1


def test_a_new_connection_gets_every_unacknowledged_event_at_once() -> None:
    session = Session(4)
    session.work()
    session.acknowledge(2)
    session.sender.on_welcome(LOG)
    assert session.work() == [3, 4]


def test_connections_that_end_before_an_acknowledgement_get_fewer_events_until_one_arrives() -> (
    None
):
    session = Session(2000)
    n_sent = [len(session.work())]
    for _ in range(3):
        session.sender.on_welcome(LOG)
        n_sent.append(len(session.work()))
        assert session.work() == []  # waits for the acknowledgement
    assert n_sent == [2000, 64, 8, 1]
    session.sender.on_welcome(LOG)
    assert session.work() == [1]
    session.acknowledge(1)
    assert session.work() == [2, 3]
    session.acknowledge(2)
    session.sender.on_welcome(LOG)  # a connection that brought some goes on as it was
    assert session.work() == [3, 4, 5, 6]
    last, sent = 6, [6]
    while last < 2000:
        session.acknowledge(last)
        sent = session.work()
        assert sent[0] == last + 1
        last = sent[-1]
    assert len(sent) > 512  # as many as the window has room for


def test_a_connection_that_accepts_no_frame_is_tried_again_soon() -> None:
    session = Session(2)
    session.is_connected = False
    assert session.work() == []
    assert session.next_call is not None
    assert 0 < session.next_call <= 0.5
    session.is_connected = True
    assert session.work(after_s=session.next_call) == [1, 2]


def test_no_more_than_a_window_of_events_is_unacknowledged() -> None:
    session = Session(10_000)
    session.acknowledge(0)
    sent = session.work()
    assert sent == list(range(1, len(sent) + 1))
    assert len(sent) < 10_000
    assert session.work() == []
    session.acknowledge(100)
    assert session.work() == list(range(len(sent) + 1, len(sent) + 101))


def test_a_refusal_is_counted_and_logged_once_and_the_events_are_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = Session(1)
    session.work()
    with caplog.at_level(logging.WARNING):
        session.refuse(frames.NO_SPACE)
        session.refuse(frames.NO_SPACE)
    assert session.sender.refused == 2
    assert caplog.text.count("disk is full") == 1
    assert session.sender.forbidden is None
    assert session.work(after_s=1.1) == [1]


def test_a_refusal_for_good_is_kept_for_the_publisher_to_raise() -> None:
    session = Session(1)
    session.refuse(frames.FORBIDDEN)
    assert session.sender.forbidden is not None
    assert session.sender.forbidden.code == frames.FORBIDDEN


def test_the_hub_decides_how_many_bytes_are_on_the_way() -> None:
    session = Session(0)
    for _ in range(100):
        session.outbox.put("t/s/0", bytes(10_000))
    assert session.work() == [1, 2, 3]  # 32 KiB, before the hub has said anything
    session.acknowledge(3, window=100_100)
    assert session.work() == list(range(4, 14))
    session.acknowledge(13, window=20_100)
    assert session.work() == [14, 15]


def test_the_hub_is_told_how_much_it_acknowledged() -> None:
    session = Session(5)
    session.work()
    session.acknowledge(3)
    session.put(1)
    session.work()
    assert session.newest.acknowledged == 3


def test_a_publisher_whose_id_somebody_else_used_goes_on_as_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = Session(3)
    session.work()
    session.acknowledge(1)
    session.acknowledge(4)
    assert "another process used its id" in caplog.text
    assert session.work() == [2, 3]
    assert session.newest.publisher != PUBLISHER
    assert session.newest.acknowledged == 0
    session.acknowledge(3, session.newest.publisher)
    assert len(session.outbox) == 0
