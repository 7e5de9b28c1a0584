"""A fetcher requests records, delivers records in order, and recovers from lost answers.

There is no hub and no thread: a test plays the hub's frames, and `work` is called with the time.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trialbus.client.fetcher import Fetcher, Start
from trialbus.errors import ClosedError, HubRefusedError, LogResetError
from trialbus.protocol import frames

LOG = frames.Welcome(frames.PROTOCOL, "log", end=10)


class LinkStub:
    """Counts wake-ups and request numbers, as a link does."""

    def __init__(self) -> None:
        self.n_wakes = 0
        self._requests = 0

    def wake(self) -> None:
        self.n_wakes += 1

    def next_request(self) -> int:
        self._requests += 1
        return self._requests


def list_offsets(sent: list[Any]) -> list[int]:
    """Return the offsets of the commits among frames, which are all of one subscriber."""
    commits = [frame for frame in sent if isinstance(frame, frames.Commit)]
    assert len({(commit.name, commit.reader) for commit in commits}) <= 1
    return [commit.offset for commit in commits]


class Session:
    """A fetcher with a simulated clock and a scripted hub."""

    def __init__(self, start: Start = 0, name: str | None = None) -> None:
        self.link = LinkStub()
        self.fetcher = Fetcher(self.link, ["*/*/*"], start, name)
        self.now = 0.0
        self.is_connected = True
        self.next_call: float | None = None
        self._sent: list[Any] = []

    def send(self, frame: Any) -> bool:
        if self.is_connected:
            self._sent.append(frame)
        return self.is_connected

    def work(self, after_s: float = 0.0) -> list[Any]:
        """Advance the clock, let the fetcher work, and return the sent frames."""
        self.now += after_s
        self._sent = []
        self.next_call = self.fetcher.work(self.send, self.now)
        return self._sent

    def fetch(self, after_s: float = 0.0) -> frames.Fetch:
        """Let the fetcher work and return the only sent frame, a fetch."""
        (frame,) = self.work(after_s)
        assert isinstance(frame, frames.Fetch)
        return frame

    def answer(self, request: int, *offsets: int, next_: int, end: int, more: bool = False) -> None:
        records = [record(offset) for offset in offsets]
        self.fetcher.on_frame(frames.Events(request, next_, end, records, more))

    def take(self) -> list[int]:
        return [item.offset for item in self.fetcher.take_batch()]


def record(offset: int) -> frames.Record:
    return frames.Record(offset, b"p", offset + 1, "stop/s/", msgspec.Raw(b"\x80"))


def begin(start: Start = 0, name: str | None = None) -> Session:
    session = Session(start, name)
    session.fetcher.on_welcome(LOG)
    return session


@pytest.mark.parametrize(
    ("start", "offset"), [(7, 7), ("now", frames.NOW), ("earliest", frames.EARLIEST)]
)
def test_the_first_fetch_asks_for_the_start_and_does_not_wait(start: Start, offset: int) -> None:
    session = begin(start, "durable")
    fetch = session.fetch()
    assert (fetch.offset, fetch.name, fetch.wait_ms) == (offset, "durable", 0)


def test_one_fetch_is_open_at_a_time() -> None:
    session = begin()
    session.fetch()
    assert session.work(after_s=1.0) == []


def test_records_are_handed_over_in_order_and_the_next_fetch_begins_after_them() -> None:
    session = begin()
    session.answer(session.fetch().request, 0, 1, next_=5, end=10)
    fetch = session.fetch()
    assert (fetch.offset, fetch.name, fetch.wait_ms) == (5, None, 0)
    session.answer(fetch.request, 5, 9, next_=10, end=10)
    assert session.take() == [0, 1]
    assert session.take() == [5, 9]
    assert session.take() == []


def test_a_fetch_at_the_end_of_the_log_waits_there() -> None:
    session = begin()
    session.answer(session.fetch().request, 9, next_=10, end=10)
    assert session.fetch().wait_ms > 1000


def test_a_fetch_that_stands_takes_every_answer_until_the_last_one() -> None:
    session = begin()
    request = session.fetch().request
    session.answer(request, 0, next_=1, end=1, more=True)
    assert session.work() == []
    session.answer(request, 1, next_=2, end=2, more=False)
    assert [session.take(), session.take()] == [[0], [1]]
    assert session.fetch().offset == 2


def test_nothing_more_is_fetched_while_the_subscriber_has_two_batches_to_read() -> None:
    session = begin()
    session.answer(session.fetch().request, 0, next_=1, end=10)
    session.answer(session.fetch().request, 1, next_=2, end=10)
    assert session.work(after_s=100.0) == []
    assert session.next_call is None
    assert session.link.n_wakes == 0
    session.take()
    assert session.link.n_wakes == 1
    assert session.fetch().offset == 2


def test_an_answer_to_an_earlier_request_is_ignored() -> None:
    session = begin()
    session.answer(session.fetch().request, 0, next_=1, end=10)
    session.fetch()
    session.answer(1, 0, next_=1, end=10)
    assert [session.take(), session.take()] == [[0], []]


def test_a_fetch_without_an_answer_is_sent_again_with_another_number() -> None:
    session = begin(3)
    first = session.fetch()
    assert session.next_call is not None
    again = session.fetch(after_s=session.next_call)
    assert (again.offset, again.request) == (3, first.request + 1)
    session.answer(first.request, 3, next_=4, end=10)  # late
    assert session.take() == []


def test_a_fetch_that_no_connection_accepts_is_tried_again_soon() -> None:
    session = begin()
    session.is_connected = False
    assert session.work() == []
    assert session.next_call is not None
    assert 0 < session.next_call <= 1.0
    session.is_connected = True
    assert session.fetch(after_s=session.next_call).offset == 0


def test_a_new_connection_voids_the_open_fetch_and_goes_on_at_the_same_offset() -> None:
    session = begin()
    session.answer(session.fetch().request, 0, next_=4, end=10)
    lost = session.fetch()
    session.fetcher.on_welcome(frames.Welcome(frames.PROTOCOL, "log", end=20))
    assert session.fetch().offset == 4
    session.answer(lost.request, 4, next_=5, end=20)
    assert [session.take(), session.take()] == [[0], []]
    assert session.fetcher.log_end == 20


def test_another_log_is_an_error_after_what_the_first_one_delivered() -> None:
    session = begin()
    session.answer(session.fetch().request, 0, next_=1, end=10)
    session.fetcher.on_welcome(frames.Welcome(frames.PROTOCOL, "another", end=1))
    assert session.take() == [0]
    with pytest.raises(LogResetError):
        session.take()
    assert session.work(after_s=1000.0) == []


@pytest.mark.parametrize("code", [frames.TOO_MANY, frames.NO_SPACE])
def test_a_refusal_that_passes_is_followed_by_another_fetch_a_second_later(code: int) -> None:
    session = begin()
    request = session.fetch().request
    session.fetcher.on_frame(frames.Refused(code, "busy", request))
    assert session.work(after_s=0.5) == []
    assert session.next_call == pytest.approx(1.5)
    assert session.work(after_s=0.9) == []
    assert session.fetch(after_s=0.1).offset == 0


@pytest.mark.parametrize("about", ["request", "name"])
def test_a_final_refusal_is_raised_and_nothing_more_is_sent(about: str) -> None:
    session = begin(name="durable")
    request = session.fetch().request
    session.fetcher.on_frame(
        frames.Refused(frames.FORBIDDEN, "no", request if about == "request" else "durable")
    )
    assert session.fetcher.available
    with pytest.raises(HubRefusedError, match="no"):
        session.take()
    assert session.work(after_s=1000.0) == []


def test_a_refusal_of_another_part_is_ignored() -> None:
    session = begin()
    session.fetch()
    session.fetcher.on_frame(frames.Refused(frames.FORBIDDEN, "no", 999))
    session.fetcher.on_frame(frames.Refused(frames.FORBIDDEN, "no", None))
    assert not session.fetcher.available


def test_a_commit_is_sent_once_and_known_to_be_on_disk_after_the_answer() -> None:
    session = begin(name="durable")
    session.fetch()
    done = session.fetcher.commit(5)
    assert list_offsets(session.work()) == [5]
    assert session.work(after_s=1.0) == []
    session.fetcher.on_frame(frames.Committed("durable", 4))
    assert not done.is_set()
    session.fetcher.on_frame(frames.Committed("durable", 5))
    assert done.is_set()


def test_a_later_commit_replaces_an_earlier_one() -> None:
    session = begin(name="durable")
    session.fetch()
    session.fetcher.commit(5)
    done = session.fetcher.commit(6)
    assert list_offsets(session.work()) == [6]
    session.fetcher.on_frame(frames.Committed("durable", 5))
    assert not done.is_set()


def test_a_commit_without_an_answer_is_sent_again_on_the_same_connection() -> None:
    session = begin(name="n")
    session.work()
    session.fetcher.commit(5)
    assert [frame.offset for frame in session.work()] == [5]
    session.fetcher.on_frame(frames.Refused(frames.NO_SPACE, "the disk is full", "n"))
    assert session.work(after_s=1.0) == []
    assert [frame.offset for frame in session.work(after_s=5.0)] == [5]


def test_a_commit_without_an_answer_is_sent_again_on_a_new_connection() -> None:
    session = begin(name="durable")
    session.fetch()
    session.fetcher.commit(5)
    session.work()
    session.fetcher.on_welcome(LOG)
    assert list_offsets(session.work()) == [5]


def test_the_start_is_known_after_the_first_answer_only() -> None:
    session = begin("now")
    assert session.fetcher.wait_ready(0.0) is None
    session.answer(session.fetch().request, next_=10, end=10)
    assert session.fetcher.wait_ready(0.0) == 10


def test_records_that_do_not_match_are_skipped_once_every_batch_is_read() -> None:
    session = begin()
    assert session.fetcher.skip_unmatched(None) is None
    session.answer(session.fetch().request, 2, next_=8, end=10)
    assert session.fetcher.skip_unmatched(None) is None
    session.take()
    assert session.fetcher.skip_unmatched(3) == 8


def test_a_closed_fetcher_hands_over_what_it_has_and_raises_then() -> None:
    session = begin()
    session.answer(session.fetch().request, 0, next_=1, end=10)
    session.fetcher.on_close()
    assert session.take() == [0]
    with pytest.raises(ClosedError):
        session.take()
