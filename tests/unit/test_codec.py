"""Events are encoded and decoded without loss, and topic and body agree."""

from __future__ import annotations

import msgspec
import pytest

import trialbus
from trialbus.messages import codec

_EVALUATION = trialbus.EvaluationComplete(study="a/b", trial=3, step=0, metrics={"loss": 1.0})


def test_an_event_is_decoded_under_its_own_topic() -> None:
    body = codec.encode(_EVALUATION)
    assert codec.decode(_EVALUATION.topic, body) == _EVALUATION
    codec.check_topic(_EVALUATION.topic, body)


@pytest.mark.parametrize(
    "topic",
    [
        "evaluation_complete/other/3",
        "evaluation_complete/a%2Fb/4",
        "evaluation_complete/a%2Fb/",
        "evaluation_complete/a/b",
        "x_mine/a%2Fb/3",
    ],
)
def test_an_event_is_not_decoded_under_another_topic(topic: str) -> None:
    body = codec.encode(_EVALUATION)
    for check in (codec.decode, codec.check_topic):
        with pytest.raises(msgspec.DecodeError, match="the topic is"):
            check(topic, body)


def test_an_event_of_an_unknown_type_is_decoded_under_its_own_topic_only() -> None:
    body = msgspec.msgpack.encode({"type": "x_mine", "study": "a", "note": 1})
    event = codec.decode("x_mine/a/", body)
    assert isinstance(event, trialbus.UnknownEvent)
    assert event.data["note"] == 1
    with pytest.raises(msgspec.DecodeError):
        codec.decode("x_mine/b/", body)


def test_a_body_with_a_key_twice_is_no_event() -> None:
    body = codec.encode(_EVALUATION)
    assert body[0] & 0xF0 == 0x80
    twice = bytes([body[0] + 1]) + body[1:] + msgspec.msgpack.encode("study")
    twice += msgspec.msgpack.encode("another")
    with pytest.raises(msgspec.DecodeError, match="the body has a key twice"):
        codec.check_topic(_EVALUATION.topic, twice)
    many = msgspec.msgpack.encode({"type": "x_a", **{f"k{i}": i for i in range(300)}})
    codec.check_topic("x_a//", many)
