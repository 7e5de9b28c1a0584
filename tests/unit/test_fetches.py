"""The hub answers readers in turn, however many fetches a reader sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.queued_socket import QueuedSocket
from trialbus.hub.durable_names import DurableNames
from trialbus.hub.fetches import Fetches
from trialbus.hub.log import Change, EventLog
from trialbus.hub.router import Router
from trialbus.protocol import frames, limits


class RecordingRouter(Router):
    """A router that records answers in place of sending."""

    def __init__(self) -> None:
        super().__init__(QueuedSocket())
        self.answers: list[tuple[bytes, frames.ToClient]] = []

    def send(self, peer: bytes, message: frames.ToClient) -> bool:
        self.answers.append((peer, message))
        return True

    def take_answers(self) -> list[tuple[bytes, frames.ToClient]]:
        answers, self.answers = self.answers, []
        return answers


@pytest.fixture
def router() -> RecordingRouter:
    return RecordingRouter()


@pytest.fixture
def fetches(tmp_path: Path, router: RecordingRouter) -> Iterator[Fetches]:
    log = EventLog(tmp_path)
    body = msgspec.Raw(msgspec.msgpack.encode({"type": "x_a"}))
    log.append(Change(events=[(b"p", seq, "x_a/s/", body) for seq in range(1, 11)]))
    yield Fetches(log, router, DurableNames(log))
    log.close()


def test_a_turn_answers_one_fetch_of_each_peer(fetches: Fetches, router: RecordingRouter) -> None:
    for request in range(limits.OPEN_FETCHES):
        fetches.take(b"greedy", frames.Fetch(request, 0, ["*/*/*"]))
    fetches.take(b"honest", frames.Fetch(1, 0, ["*/*/*"]))
    fetches.answer()
    assert [peer for peer, _ in router.take_answers()] == [b"greedy", b"honest"]
    fetches.take(b"honest", frames.Fetch(2, 0, ["*/*/*"]))
    fetches.answer()
    assert [peer for peer, _ in router.take_answers()] == [b"greedy", b"honest"]


def test_a_peer_has_a_limited_number_of_open_fetches(
    fetches: Fetches, router: RecordingRouter
) -> None:
    for request in range(limits.OPEN_FETCHES + 1):
        fetches.take(b"greedy", frames.Fetch(request, 0, ["*/*/*"]))
    reason = f"more than {limits.OPEN_FETCHES} open fetches of one connection"
    assert router.take_answers() == [
        (b"greedy", frames.Refused(frames.TOO_MANY, reason, limits.OPEN_FETCHES))
    ]


def test_an_answer_holds_at_most_as_many_events_as_the_fetch_allows(
    fetches: Fetches, router: RecordingRouter
) -> None:
    fetches.take(b"peer", frames.Fetch(1, 0, ["*/*/*"], max_events=3))
    fetches.answer()
    ((_, answer),) = router.take_answers()
    assert isinstance(answer, frames.Events)
    assert [record.offset for record in answer.records] == [0, 1, 2]
    assert answer.next == 3
