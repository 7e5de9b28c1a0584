"""Frames that hypothesis mutates are decoded or refused with the documented error."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

import trialbus
from support.processes import Bus
from support.raw_client import RawClient
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.messages import codec
from trialbus.protocol import frames
from trialbus.testing import TestBus

_NESTED = b"\x91" * 100_000 + b"\xc0"  # [[[...[None]...]]]
_NO_TEXT = b"\xa2\xff\xfe"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(["x" * 257, "*/*/*", b"x" * 65]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)
numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**62 - 1))
names = st.sampled_from(["", "fuzz", "a/b", "*", "\0", "x" * 256])
patterns = st.lists(st.sampled_from(["*/*/*", "prune/s/*", "/", "//", ""]), min_size=1, max_size=64)
publishers = st.sampled_from([b"x" * 16, b"y" * 16, b"hub", b"z"])
bodies = values.map(msgspec.msgpack.encode).map(msgspec.Raw)
entries = st.lists(st.tuples(st.sampled_from(["x_fuzz/s/0", "//", "x"]), bodies), max_size=4)

to_hub: SearchStrategy[Any] = st.one_of(
    st.builds(frames.Publish, publishers, numbers, entries, numbers),
    st.builds(
        frames.Fetch,
        st.integers(0, 3),
        st.one_of(st.integers(-2, 3), numbers),
        patterns,
        numbers,
        st.integers(0, 50),
        st.one_of(st.none(), names),
    ),
    st.builds(frames.Commit, names, numbers),
    st.builds(
        frames.Hello,
        names,
        names,
        names,
        numbers,
        names,
        st.one_of(st.none(), numbers),
        st.one_of(st.none(), numbers),
        st.dictionaries(names, names, max_size=3),
        st.booleans(),
    ),
    st.builds(frames.Ping, names),
    st.builds(frames.Bye, names),
    st.builds(frames.AskStatus, numbers),
)
records = st.builds(frames.Record, numbers, publishers, numbers, names, bodies)
to_client: SearchStrategy[Any] = st.one_of(
    st.builds(frames.Ack, publishers, numbers),
    st.builds(frames.Events, numbers, numbers, numbers, st.lists(records, max_size=3)),
    st.builds(frames.Committed, names, numbers),
    st.builds(frames.Seen, names),
    st.builds(frames.Welcome, numbers, names, numbers),
    st.builds(frames.Status, numbers, st.dictionaries(names, values, max_size=3)),
    st.builds(frames.Refused, numbers, names, st.one_of(st.none(), numbers, names)),
)


@st.composite
def mutated(draw: DrawFn, messages: SearchStrategy[Any]) -> bytes:
    """Return a mutated valid frame."""
    frame = frames.encode(draw(messages))
    match draw(st.sampled_from(["as it is", "cut", "bytes", "fields", "noise"])):
        case "cut":
            return frame[: draw(st.integers(0, len(frame)))]
        case "bytes":
            changed = bytearray(frame)
            for place in draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=4)):
                changed[place] = draw(st.integers(0, 255))
            return bytes(changed) + draw(st.binary(max_size=2))
        case "fields":
            fields = msgspec.msgpack.decode(frame)
            place = draw(st.integers(0, len(fields) - 1))
            fields[place : place + draw(st.integers(0, 2))] = draw(st.lists(values, max_size=2))
            return msgspec.msgpack.encode(fields)
        case "noise":
            return draw(st.binary(max_size=64))
        case _:
            return frame


@settings(max_examples=1000)
@example(b"\x93\x07\x01" + _NESTED)
@example(b"\x92\x05" + _NO_TEXT)
@given(mutated(to_hub))
def test_what_comes_from_a_client_is_a_message_or_a_decode_error(frame: bytes) -> None:
    try:
        message = frames.decode_to_hub(frame)
    except msgspec.DecodeError:
        return
    assert isinstance(message, frames.ToHub)
    assert frames.decode_to_hub(frames.encode(message)) == message


@settings(max_examples=1000)
@example(b"\x93\x10\x01\x81\xa1a" + _NESTED)
@example(b"\x92\x0e" + _NO_TEXT)
@given(mutated(to_client))
def test_what_comes_from_the_hub_is_a_message_or_a_decode_error(frame: bytes) -> None:
    try:
        message = frames.decode_to_client(frame)
    except msgspec.DecodeError:
        return
    assert isinstance(message, frames.ToClient)


@settings(max_examples=1000)
@example("stop", b"\x82\xa4type\xa4stop\xa1a" + _NESTED)
@example("stop", b"\x82\xa4type\xa4stop\xa5study" + _NO_TEXT)
@example("x_fuzz", b"\x81\xa1a" + _NO_TEXT)
@given(
    st.sampled_from(sorted(codec.list_known_types() | {"x_fuzz"})),
    st.one_of(st.binary(max_size=64), values.map(msgspec.msgpack.encode)),
)
def test_the_body_of_a_record_is_an_event_or_a_decode_error(type_: str, body: bytes) -> None:
    record = frames.Record(0, b"x", 1, f"{type_}/s/0", msgspec.Raw(body))
    try:
        event = record.event
    except msgspec.DecodeError:
        return
    assert isinstance(event, trialbus.Event | trialbus.UnknownEvent)


def is_unreadable(parts: list[bytes]) -> bool:
    """Tell whether the hub has to refuse a message, whatever the content."""
    if len(parts) != 1:
        return True
    try:
        frames.decode_to_hub(parts[0])
    except msgspec.DecodeError:
        return parts != [b""]  # libzmq's own probe
    return False


class Stranger:
    """A peer that sends any bytes, and counts the refusals."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self.refused = 0
        self.reason = ""

    def send(self, parts: list[bytes]) -> None:
        self._client.send_bytes(*parts)

    def read(self) -> None:
        for message in self._client.receive_available():
            if isinstance(message, frames.Refused):
                self.refused += 1
                self.reason = message.reason


def test_whatever_a_stranger_sends_is_counted_and_an_ordinary_client_is_served() -> None:
    with (
        TestBus() as bus,
        RawClient(bus.endpoint) as raw_client,
        trialbus.Link(bus.endpoint) as link,
        trialbus.subscribe(trialbus.EvaluationComplete, study="ours", link=link) as inbox,
        trialbus.Publisher(link=link) as publisher,
    ):
        inbox.wait_ready()
        stranger = Stranger(raw_client)
        rounds = 0
        unreadable = 0

        def all_is_accounted_for() -> bool:
            status = hub_status(link)
            stranger.read()
            counted = {k: n for k, n in status.counters.items() if k.startswith("refused_")}
            return (
                counted.get("refused_400", 0) >= unreadable
                and sum(counted.values()) == stranger.refused
                and status.last_refused == stranger.reason
            )

        message = st.one_of(
            mutated(to_hub).map(lambda frame: [frame]),
            st.lists(mutated(to_hub), min_size=1, max_size=3),
        )

        @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(message, min_size=1, max_size=20))
        def attack(batch: list[list[bytes]]) -> None:
            nonlocal rounds, unreadable
            for parts in batch:
                stranger.send(parts)
                unreadable += is_unreadable(parts)
            until(all_is_accounted_for, 20, "the count of refusals")
            publisher.publish(
                trialbus.EvaluationComplete(study="ours", trial=0, step=rounds, metrics={})
            )
            assert publisher.flush(20)
            event = inbox.next(20)
            assert event is not None
            assert event.step == rounds
            rounds += 1

        attack()
        assert unreadable > 50


def test_a_frame_that_is_nested_without_end_is_refused(bus: Bus, raw_client: RawClient) -> None:
    hub = bus.hub()
    with trialbus.Link(bus.endpoint) as link:
        link.wait_connected(20)
        raw_client.send_bytes(b"\x93\x07\x01" + _NESTED)
        until(
            lambda: not hub.running or hub_status(link).counters.get("refused_400") == 1,
            describe="the refusal",
        )
        assert hub.running


def test_an_event_whose_body_is_no_text_is_skipped_and_counted(
    bus: Bus, raw_client: RawClient
) -> None:
    bus.hub()
    with (
        trialbus.subscribe(trialbus.Stop, endpoint=bus.endpoint) as inbox,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        inbox.wait_ready(20)
        body = msgspec.Raw(b"\x82\xa4type\xa4stop\xa5study" + _NO_TEXT)
        raw_client.send(frames.Publish(b"stranger", 1, [("stop/s/", body)]))
        until(lambda: inbox.available)
        publisher.publish(trialbus.Stop(study="s"))
        event = inbox.next(20)
        assert isinstance(event, trialbus.Stop)
        assert inbox.unreadable == 1
