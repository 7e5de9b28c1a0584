"""Frames are bounded before the hub reads the content."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trialbus.protocol import frames


def hello(info: dict[str, Any]) -> bytes:
    return frames.encode(frames.Hello("id", "worker", "w", 1000, info=info))


def test_the_info_of_a_session_holds_text_numbers_and_booleans() -> None:
    info = {"host": "a", "applied": 3, "load": 0.5, "is_idle": True}
    decoded = frames.decode_to_hub(hello(info))
    assert isinstance(decoded, frames.Hello)
    assert decoded.info == info
    assert [type(value) for value in decoded.info.values()] == [str, int, float, bool]


@pytest.mark.parametrize(
    "info",
    [{"host": "a" * 257}, {"k" * 257: "a"}, {"list": [1]}, {f"k{i}": i for i in range(33)}],
    ids=["long text", "long key", "a list", "too many"],
)
def test_the_info_of_a_session_is_bounded(info: dict[str, Any]) -> None:
    with pytest.raises(msgspec.DecodeError):
        frames.decode_to_hub(hello(info))
