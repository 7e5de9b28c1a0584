"""The refusal of a frame names the field, the value, the limit and the subject."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from trialbus.protocol import frames, limits
from trialbus.protocol.refusals import explain_decode_error

EVENT = ["x_a/s/", {"type": "x_a"}]


def refuse(frame: bytes) -> tuple[str, int | str | None]:
    with pytest.raises(msgspec.DecodeError) as error:
        frames.decode_to_hub(frame)
    reason, about = explain_decode_error(frame, error.value)
    return reason.removeprefix("not a frame of this protocol: "), about


WRONG: list[tuple[Any, str, int | str | None]] = [
    ([2, 7, 0, ["*/*/*"] * 65], "fetch.patterns: Expected `array` of length <= 64, got 65", 7),
    (
        [2, 7, 0, ["*/*/*", "x" * 1025]],
        "fetch.patterns[1]: Expected `str` of length <= 1024, got 1025",
        7,
    ),
    ([2, 7, 0, ["*/*/*"], 0], "fetch.max_events: Expected `int` >= 1, got 0", 7),
    ([3, "n" * 257, 5], "commit.name: Expected `str` of length <= 256, got 257", None),
    (
        [4, "s", "k", "n", 1 << 62],
        "hello.ttl_ms: Expected `int` <= 4611686018427387903, got 4611686018427387904",
        "s",
    ),
    (
        [4, "s", "k", "n", 5, "", None, None, {"a": "x" * 257}],
        "hello.info[...]: Expected `str` of length <= 256",
        "s",
    ),
    (
        [1, b"i" * 65, 1, [EVENT]],
        "publish.publisher: Expected `bytes` of length <= 64, got 65",
        None,
    ),
    ([1, b"id", -1, [EVENT]], "publish.first: Expected `int` >= 0, got -1", "6964"),
    ([7], "ask_status: Expected `array` of at least length 2, got 1", None),
    ([7, True], "ask_status.request: Expected `int`, got `bool`", None),
    ([99, 1], "Invalid value 99 - at `$[0]`", None),
    ([[], 1], "Expected `int`, got `array` - at `$[0]`", None),
    ({"a": 1}, "Expected `array`, got `object`", None),
    ([True, 1], "Expected `int`, got `bool` - at `$[0]`", None),
    ([1.0, 1], "Expected `int`, got `float` - at `$[0]`", None),
    ([msgspec.msgpack.Ext(5, b"x"), 1], "Expected `int`, got `ext` - at `$[0]`", None),
]


@pytest.mark.parametrize(("fields", "reason", "about"), WRONG)
def test_a_wrong_value_is_named_with_its_field(
    fields: Any, reason: str, about: int | str | None
) -> None:
    assert refuse(msgspec.msgpack.encode(fields)) == (reason, about)


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x92\x05\xa2\xff\xfe", bytes(1 << 20)])
def test_a_frame_that_is_no_messagepack_is_explained_too(frame: bytes) -> None:
    reason, about = refuse(frame)
    assert reason
    assert about is None


def make_value(chance: random.Random, depth: int = 0) -> bytes:
    """Return a value of MessagePack, also of those that Python cannot hash or read."""
    simple: list[Any] = [0, -1, 2**62, 2**64 - 1, "", "a" * 2000, b"", b"p" * 65, 1.0, True, None]
    match chance.randrange(8):
        case 0:
            return msgspec.msgpack.encode(msgspec.msgpack.Ext(chance.randrange(127), b"x"))
        case 1:  # a time
            return b"\xd7\xff" + chance.randbytes(8)
        case 2:
            return b"\xc1" if depth else b"\xa3\xff\xfe\xfd"
        case 3 if depth < 3:
            return b"\x92" + make_value(chance, depth + 1) + make_value(chance, depth + 1)
        case 4 if depth < 3:
            return b"\x81" + make_value(chance, depth + 1) + make_value(chance, depth + 1)
        case _:
            return msgspec.msgpack.encode(chance.choice(simple))


@pytest.mark.parametrize("seed", range(5))
def test_any_value_in_any_field_is_refused_in_words(seed: int) -> None:
    chance = random.Random(seed)
    whole: list[list[Any]] = [
        [1, b"p" * 16, 1, [EVENT], 1, 0],
        [2, 1, 0, ["*/*/*"], 5, 0, None, 1, ""],
        [3, "n", 1, "r"],
        [4, "s", "k", "n", 100, "study", 1, 1, {"a": 1}, False],
        [5, "s"],
        [7, 1],
        [8, 1, None, "n", False],
    ]
    n_refused = 0
    for _ in range(2000):
        fields = [msgspec.msgpack.encode(value) for value in chance.choice(whole)]
        fields[chance.randrange(len(fields))] = make_value(chance)
        frame = bytes([0x90 + len(fields)]) + b"".join(fields)
        try:
            frames.decode_to_hub(frame)
        except msgspec.DecodeError as error:
            reason, about = explain_decode_error(frame, error)
            frames.encode(frames.Refused(frames.BAD_FRAME, reason, about))
            n_refused += 1
    assert n_refused > 1000


def publish_nested(depth: int) -> bytes:
    return b"\x94\x01\xc4\x01a\x01\x91\x92\xa6x_a/s/" + b"\x91" * depth + b"\xc0"


def test_a_body_may_be_nested_as_deeply_as_the_limit_says() -> None:
    assert isinstance(frames.decode_to_hub(publish_nested(limits.MAX_NESTING)), frames.Publish)
    reason, _ = refuse(publish_nested(100_000))
    assert str(limits.MAX_NESTING) in reason
