"""A session tells the hub what changed about it, whatever answers are on the way."""

from __future__ import annotations

from typing import Any

from trialbus.client.part_driver import PartDriver
from trialbus.client.presence import Presence
from trialbus.protocol import frames


def test_new_information_is_sent_though_an_earlier_heartbeat_is_answered_meanwhile() -> None:
    driver = PartDriver("ipc:///test-presence")
    presence = Presence(link=driver, kind="worker", ttl_s=3.0, info={"waits": ""})
    sent: list[Any] = []

    def send(frame: Any) -> bool:
        sent.append(frame)
        return True

    driver.handle(frames.Welcome(frames.PROTOCOL, "log", end=0))
    for now in (0.0, 2.0, 4.0):
        driver.work(send, now)
        if now == 2.0:
            presence.inform({"waits": "slot 0"})
        driver.handle(frames.Seen(presence.session))
    driver.work(send, 6.0)
    kinds = [type(frame).__name__ for frame in sent]
    assert kinds == ["Hello", "Ping", "Hello", "Ping"]
    assert sent[2].info == {"waits": "slot 0"}
