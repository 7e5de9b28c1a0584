"""A turn of the hub reads a bounded part of the arrived messages."""

from __future__ import annotations

import pytest

from support.queued_socket import QueuedSocket
from trialbus.hub.router import TURN_BYTES, TURN_FRAMES, Router
from trialbus.protocol import limits


class QueuedRouter(Router):
    """A router with waiting messages on the socket."""

    def __init__(self) -> None:
        socket = QueuedSocket()
        super().__init__(socket)
        self.queue = socket.queue
        self.refusals: list[tuple[bytes, str]] = []  # peer and reason

    def refuse(self, peer: bytes, code: int, reason: str, about: int | str | None) -> None:
        super().refuse(peer, code, reason, about)
        self.refusals.append((peer, reason))


def count_turns(router: QueuedRouter) -> list[int]:
    """Take turns until the queue is empty, and return how many messages each yielded."""
    counts: list[int] = []
    while router.queue:
        counts.append(len(list(router.receive_turn())))
    return counts


@pytest.fixture
def router() -> QueuedRouter:
    return QueuedRouter()


def test_a_turn_ends_after_a_number_of_messages(router: QueuedRouter) -> None:
    router.queue.extend([(b"peer", [b"x"])] * (2 * TURN_FRAMES + 10))
    assert count_turns(router) == [TURN_FRAMES, TURN_FRAMES, 10]


def test_a_turn_ends_after_a_number_of_bytes(router: QueuedRouter) -> None:
    router.queue.extend([(b"peer", [bytes(TURN_BYTES // 4)])] * 12)
    assert count_turns(router) == [5, 5, 2]


def test_the_messages_of_a_flood_count_for_the_turn_and_the_peer_is_told_once(
    router: QueuedRouter,
) -> None:
    size = TURN_BYTES + 1
    cost = size + limits.BYTES_PER_SECOND // limits.FRAMES_PER_SECOND
    n_admitted = limits.BYTES_PER_SECOND // cost
    router.queue.extend([(b"loud", [bytes(size)])] * (n_admitted + 10))
    router.queue.append((b"quiet", [b"x"]))
    assert count_turns(router) == [1] * n_admitted + [0] * 10 + [1]
    ((peer, reason),) = router.refusals
    assert peer == b"loud"
    assert f"at most {limits.BYTES_PER_SECOND} bytes" in reason
