"""The window of unacknowledged events of a publisher shrinks with the number of publishers."""

from __future__ import annotations

from trialbus.hub.windows import Windows
from trialbus.protocol.limits import IN_FLIGHT, MAX_WINDOW, MIN_WINDOW


def test_a_publisher_alone_gets_the_largest_window() -> None:
    assert Windows(lambda: 0.0).grant(b"a") == MAX_WINDOW


def test_many_publishers_share_what_the_hub_holds_and_get_it_back_when_others_are_silent() -> None:
    now = [0.0]
    windows = Windows(lambda: now[0])
    grants = [windows.grant(b"%d" % i) for i in range(1000)]
    assert grants[-1] == IN_FLIGHT // 1000
    now[0] = 11.0
    assert windows.grant(b"1") == IN_FLIGHT // 1000  # the others may only be slow
    now[0] = 22.0
    assert windows.grant(b"1") == MAX_WINDOW
    now[0] = 100.0
    grants = [windows.grant(b"%d" % i) for i in range(100_000)]
    assert grants[-1] == MIN_WINDOW
