"""A peer above its share of the hub is ignored, and disconnected if the peer continues."""

from __future__ import annotations

import pytest

from trialbus.hub.flood_guard import FloodGuard
from trialbus.protocol import frames, limits

LIMIT = limits.BYTES_PER_SECOND
MAX_IGNORED = limits.IGNORED_PER_SECOND
TOTAL_LIMIT = limits.TOTAL_BYTES_PER_SECOND


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


def count_admitted(guard: FloodGuard, message: frames.ToHub | None) -> int:
    """Send a message until the guard ignores the sender, and return the number of admissions."""
    for n_admitted in range(100_000):
        if not guard.admit(b"peer", 0):
            return n_admitted
        if message is None:
            guard.charge_refusal(b"peer")
        else:
            guard.charge(b"peer", message)
    raise AssertionError("the guard admits everything")


@pytest.mark.parametrize(
    ("message", "per_second"),
    [
        (frames.AskStatus(1), limits.STATUS_REQUESTS_PER_SECOND),
        (frames.Forget(1), limits.FORGETS_PER_SECOND),
        (frames.Hello("s", "trainer", "", 1000), limits.HELLOS_PER_SECOND),
        (frames.Fetch(1, 0, ["*/*/*"]), limits.FETCHES_PER_SECOND),
        (frames.Commit("n", 0), limits.COMMITS_PER_SECOND),
        (frames.Ping("s"), limits.FRAMES_PER_SECOND),
        (None, limits.REFUSALS_PER_SECOND),
    ],
    ids=["ask_status", "forget", "hello", "fetch", "commit", "ping", "refused"],
)
def test_a_peer_may_send_as_many_frames_in_a_second_as_their_limit_says(
    message: frames.ToHub | None, per_second: int
) -> None:
    assert per_second <= count_admitted(FloodGuard(Clock()), message) <= per_second * 1.01 + 1


def test_a_status_of_many_sessions_costs_more_than_a_small_one() -> None:
    guard = FloodGuard(Clock())
    for _ in range(limits.STATUS_ENTRIES_PER_SECOND // limits.SESSIONS):
        assert guard.admit(b"asker", 0)
        guard.charge_status(b"asker", limits.SESSIONS)
    assert not guard.admit(b"asker", 0)


def test_five_thousand_sessions_of_one_connection_may_begin_at_once() -> None:
    guard = FloodGuard(Clock())
    for _ in range(limits.SESSIONS_PER_CONNECTION):
        if guard.admit(b"peer", 100):
            guard.charge(b"peer", frames.Hello("s", "trainer", "", 1000))
    assert not guard.is_exceeded  # those that were ignored send their hello again


def test_a_publisher_of_two_hundred_thousand_events_a_second_is_no_flood() -> None:
    guard = FloodGuard(Clock())
    for _ in range(200_000 // 50):  # fifty events of 300 bytes in a frame
        assert guard.admit(b"publisher", 50 * 300)


def test_many_peers_together_have_a_limit_too() -> None:
    guard = FloodGuard(Clock())
    for peer in range(2 * TOTAL_LIMIT // LIMIT):
        guard.admit(str(peer), LIMIT // 2 + LIMIT // 100)
    assert guard.is_exceeded
