"""A message above a limit is refused by name of the limit, and other clients are served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import trialbus
from support.raw_client import RawClient
from trialbus.client.presence import Presence
from trialbus.protocol import frames, limits
from trialbus.protocol.status import InfoValue
from trialbus.testing import TestBus


@pytest.fixture
def client() -> Iterator[RawClient]:
    with TestBus() as bus, RawClient(bus.endpoint) as client:
        yield client


def refusal_of(client: RawClient, message: frames.ToHub) -> frames.Refused:
    """Send a message and return the refusal; an acknowledgement may come before or after."""
    client.send(message)
    while not isinstance(answer := client.receive(), frames.Refused):
        assert isinstance(answer, frames.Ack), answer
    return answer


def publish(publisher: bytes, *bodies: dict[str, Any], first: int = 1) -> Any:
    events = [("x_a/s/", msgspec.Raw(msgspec.msgpack.encode(body))) for body in bodies]
    return frames.Publish(publisher, first, events)


def ack_of(client: RawClient, message: frames.ToHub) -> frames.Ack:
    client.send(message)
    answer = client.receive()
    assert isinstance(answer, frames.Ack), answer
    return answer


@pytest.mark.parametrize(
    ("n_bytes", "limit"),
    [
        (limits.MAX_EVENT + 1, limits.MAX_EVENT),
        (limits.MAX_FRAME, limits.MAX_FRAME),
        (limits.MAX_RECEIVED - 100, limits.MAX_FRAME),
    ],
    ids=["event", "event as large as a frame", "frame"],
)
def test_a_large_event_is_refused_and_its_publisher_goes_on_without_it(
    client: RawClient, n_bytes: int, limit: int
) -> None:
    refused = refusal_of(client, publish(b"me", {"type": "x_a", "filling": "x" * n_bytes}))
    assert (refused.code, refused.about) == (frames.BAD_FRAME, b"me".hex())
    assert f"at most {limit}" in refused.reason
    assert ack_of(client, publish(b"me", {"type": "x_a"})).last == 1


def test_an_event_as_large_as_the_limit_is_taken(client: RawClient) -> None:
    body = {"type": "x_a", "filling": ""}
    body["filling"] = "x" * (limits.MAX_EVENT - len(msgspec.msgpack.encode(body)) - 4)
    assert len(msgspec.msgpack.encode(body)) == limits.MAX_EVENT
    assert ack_of(client, publish(b"me", body)).last == 1


def test_a_topic_that_is_too_long_is_refused(client: RawClient) -> None:
    event = ("x_a/s/" + "1" * limits.MAX_TOPIC, msgspec.Raw(b"\x80"))
    refused = refusal_of(client, frames.Publish(b"me", 1, [event]))
    assert (refused.code, refused.about) == (frames.BAD_FRAME, b"me".hex())
    assert str(limits.MAX_TOPIC) in refused.reason


def test_a_time_to_live_of_more_than_a_day_is_refused(client: RawClient) -> None:
    client.send(frames.Hello("s", "trainer", "", limits.MAX_TTL_MS))
    assert client.receive() == frames.Seen("s")
    refused = refusal_of(client, frames.Hello("t", "trainer", "", 1 << 61))
    assert (refused.code, refused.about) == (frames.BAD_FRAME, "t")
    assert f"at most {limits.MAX_TTL_MS}" in refused.reason


def test_a_hello_that_shows_too_much_is_refused(client: RawClient) -> None:
    info: dict[str, InfoValue] = {f"key{number}": "x" * 200 for number in range(limits.MAX_INFO)}
    refused = refusal_of(client, frames.Hello("s", "trainer", "", 1000, info=info))
    assert (refused.code, refused.about) == (frames.BAD_FRAME, "s")
    assert f"at most {limits.MAX_HELLO}" in refused.reason


def test_sessions_of_one_connection_too_many_are_refused(
    client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSIONS_PER_CONNECTION", 3)
    for number in range(3):
        client.send(frames.Hello(str(number), "trainer", "", 1000))
        assert isinstance(client.receive(), frames.Seen)
    refused = refusal_of(client, frames.Hello("3", "trainer", "", 1000))
    assert (refused.code, refused.about) == (frames.TOO_MANY, "3")
    assert "more than 3 sessions of one connection" in refused.reason
    client.send(frames.Bye("0"))
    client.send(frames.Hello("3", "trainer", "", 1000))
    assert client.receive() == frames.Seen("3")


def test_durable_names_too_many_are_refused_and_those_that_exist_go_on(client: RawClient) -> None:
    for first in range(0, limits.DURABLE_NAMES, 25):  # the hub keeps few answers for a peer
        for number in range(first, first + 25):
            client.send(frames.Commit(f"name{number}", 0))
        for _ in range(25):
            assert isinstance(client.receive(), frames.Committed)
    for message, about in (
        (frames.Commit("another", 0), "another"),
        (frames.Fetch(7, frames.NOW, ["*/*/*"], name="another"), 7),
    ):
        refused = refusal_of(client, message)
        assert (refused.code, refused.about) == (frames.CONFLICT, about)
        assert f"more than {limits.DURABLE_NAMES} durable names" in refused.reason
    client.send(frames.Commit("name7", 0))
    assert client.receive() == frames.Committed("name7", 0)
    client.send(frames.Forget(8, name="name7"))
    assert client.receive() == frames.Forgotten(8)
    client.send(frames.Commit("another", 0))
    assert client.receive() == frames.Committed("another", 0)


def test_new_publishers_too_many_of_one_connection_are_refused_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "NEW_PUBLISHERS_PER_MINUTE", 2)
    event = {"type": "x_a"}
    with TestBus() as bus, RawClient(bus.endpoint) as client, RawClient(bus.endpoint) as other:
        assert ack_of(client, publish(b"a", event)).last == 1
        assert ack_of(client, publish(b"b")).last == 0  # it wrote nothing, and counts for nothing
        assert ack_of(client, publish(b"b", event)).last == 1
        refused = refusal_of(client, publish(b"c", event))
        assert (refused.code, refused.about) == (frames.TOO_MANY, b"c".hex())
        assert "more than 2 new publishers of one connection in a minute" in refused.reason
        assert ack_of(other, publish(b"c", event)).last == 1
        client.receive_available()
        while (ack := ack_of(client, publish(b"a", event, first=2))).publisher != b"a":
            pass
        assert ack.last == 2


def test_a_fetch_of_no_events_is_refused(client: RawClient) -> None:
    refused = refusal_of(client, frames.Fetch(7, 0, ["*/*/*"], max_events=0))
    assert (refused.code, refused.about) == (frames.BAD_FRAME, 7)
    assert "fetch.max_events: Expected `int` >= 1, got 0" in refused.reason


def test_a_publisher_refuses_an_event_that_the_hub_would_refuse() -> None:
    with TestBus() as bus, trialbus.Publisher(bus.endpoint) as publisher:
        with pytest.raises(ValueError, match=f"at most {limits.MAX_TOPIC} fit; shorten the name"):
            publisher.publish(trialbus.Stop(study="%" * (limits.MAX_TOPIC // 3)))
        with pytest.raises(ValueError, match=f"at most {limits.MAX_EVENT} fit"):
            publisher.publish(trialbus.Stop(study="s", reason="x" * limits.MAX_EVENT))
        publisher.publish(trialbus.Stop(study="s"))
        assert publisher.flush(10)


def test_a_presence_of_more_than_a_day_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at most 86400, a day"):
        Presence(kind="worker", ttl_s=86_401)
