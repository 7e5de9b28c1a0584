"""What the hub lets publishers have on the way shrinks as they become many."""

from __future__ import annotations

from trialbus.hub.windows import Windows
from trialbus.protocol.limits import IN_FLIGHT, MAX_WINDOW, MIN_WINDOW


def test_a_publisher_alone_gets_the_largest_window() -> None:
    assert Windows(lambda: 0.0).grant(b"a") == MAX_WINDOW


def test_many_publishers_share_what_the_hub_holds_and_get_it_back_when_others_are_silent() -> None:
    now = [0.0]
    windows = Windows(lambda: now[0])
    for i in range(1000):
        window = windows.grant(b"%d" % i)
    assert window == IN_FLIGHT // 1000
    now[0] = 11.0
    assert windows.grant(b"1") == IN_FLIGHT // 1000  # the others may only be slow
    now[0] = 22.0
    assert windows.grant(b"1") == MAX_WINDOW
    now[0] = 100.0
    for i in range(100_000):
        window = windows.grant(b"%d" % i)
    assert window == MIN_WINDOW
