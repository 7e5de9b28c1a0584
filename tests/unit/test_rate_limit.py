"""Additions of a connection in a minute are limited, for each connection alone."""

from __future__ import annotations

from trialbus.hub.rate_limit import RateLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_connection_may_add_as_much_again_in_the_next_minute() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    assert [limit.admit(b"a") for _ in range(3)] == [True, True, False]
    assert limit.admit(b"b")
    clock.now = 59.9
    assert not limit.admit(b"a")
    clock.now = 60.0
    assert limit.admit(b"a")
