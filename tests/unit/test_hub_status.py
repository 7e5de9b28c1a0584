"""The status of a hub of another version can be read."""

from __future__ import annotations

import msgspec

from trialbus.protocol import frames
from trialbus.protocol.status import HubStatus, SessionStatus


def test_a_status_with_fields_of_a_later_version_is_read() -> None:
    later = {
        "log_id": "a",
        "end": 7,
        "weather": "fine",
        "sessions": [{"session": "s", "kind": "x"}],
    }
    answer = frames.decode_to_client(msgspec.msgpack.encode([16, 3, later, "more"]))
    assert answer == frames.Status(
        3, HubStatus(log_id="a", end=7, sessions=[SessionStatus(session="s", kind="x")])
    )


def test_a_status_travels_as_the_map_that_the_protocol_describes() -> None:
    status = HubStatus(log_id="a", end=7, counters={"refused_400": 1})
    _, request, fields = msgspec.msgpack.decode(frames.encode(frames.Status(3, status)))
    assert request == 3
    assert fields["counters"] == {"refused_400": 1}
    assert fields["retention"] == {"removed": 0, "removing": [], "held_back": {}}


def test_a_session_shows_numbers_as_numbers() -> None:
    hello = frames.Hello("s", "optimizer", "", 1000, info={"applied": 3, "p50": 0.5, "up": True})
    assert frames.decode_to_hub(frames.encode(hello)) == hello
