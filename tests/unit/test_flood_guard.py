"""A peer that uses too much of the hub is ignored, and one that goes on is told apart."""

from __future__ import annotations

from trialbus.hub.flood_guard import LIMIT, MAX_IGNORED, TOTAL_LIMIT, FloodGuard
from trialbus.protocol import frames


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_peer_is_ignored_for_the_rest_of_the_second() -> None:
    clock = Clock()
    guard = FloodGuard(clock)
    assert guard.admit(b"loud", LIMIT // 2)
    assert not guard.admit(b"loud", LIMIT // 2)
    assert guard.admit(b"quiet", 100)
    assert guard.flooding_senders() == [b"loud"]
    clock.now = 0.9
    guard.begin_window()
    assert not guard.admit(b"loud", 1)
    clock.now = 1.0
    guard.begin_window()
    assert guard.admit(b"loud", 1)
    assert guard.flooding_senders() == []


def test_a_peer_that_goes_on_while_it_is_ignored_has_to_be_disconnected() -> None:
    guard = FloodGuard(Clock())
    guard.admit(b"loud", LIMIT)
    for _ in range(MAX_IGNORED - 1):
        guard.admit(b"loud", 1)
    assert not guard.is_exceeded
    guard.admit(b"loud", 1)
    assert guard.is_exceeded
    guard.reset()
    assert not guard.is_exceeded


def test_what_is_costly_to_answer_counts_more() -> None:
    guard = FloodGuard(Clock())
    for request in range(190):
        assert guard.admit(b"asker", 4)
        guard.charge(b"asker", frames.AskStatus(request))
    for request in range(10):
        guard.charge(b"asker", frames.AskStatus(request))
    assert not guard.admit(b"asker", 4)
    for _ in range(1000):
        guard.charge(b"noise", None)
    assert not guard.admit(b"noise", 4)


def test_a_publisher_of_two_hundred_thousand_events_a_second_is_no_flood() -> None:
    guard = FloodGuard(Clock())
    for _ in range(200_000 // 50):  # fifty events of 300 bytes in a frame
        assert guard.admit(b"publisher", 50 * 300)


def test_many_peers_together_have_a_limit_too() -> None:
    guard = FloodGuard(Clock())
    for peer in range(2 * TOTAL_LIMIT // LIMIT):
        guard.admit(str(peer), LIMIT // 2 + LIMIT // 100)
    assert guard.is_exceeded
