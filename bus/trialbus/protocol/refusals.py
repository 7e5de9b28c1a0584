"""Texts and subjects of the hub's refusals of frames."""

from __future__ import annotations

import re
from typing import Any, assert_never, cast, get_args

import msgspec

from trialbus.protocol import frames, limits

_MAX_EXPLAINED = 64 << 10  # bytes of a frame that is decoded again for the text of its refusal
_PATH = re.compile(r"(?P<expected>.*) - at `\$\[(?P<index>\d+)\](?P<rest>.*)`")
_FRAMES: dict[object, type[frames.ToHub]] = {
    frame.__struct_config__.tag: frame for frame in get_args(frames.ToHub)
}


def find_subject(message: frames.ToHub) -> int | str:
    """Return the subject of a message's refusal: a request, session, name or publisher."""
    match message:
        case frames.Publish():
            return message.publisher.hex()
        case frames.Fetch() | frames.AskStatus() | frames.Forget():
            return message.request
        case frames.Commit():
            return message.name
        case frames.Hello() | frames.Ping() | frames.Bye():
            return message.session
        case _:
            assert_never(message)


def explain_decode_error(frame: bytes, error: msgspec.DecodeError) -> tuple[str, int | str | None]:
    """Return why a frame cannot be decoded, and the subject of the refusal.

    The reason names the field, what it holds and what it may hold, if the frame is a small one.
    """
    reason = str(error)
    if "recursion" in reason:
        reason = f"nested too deeply (at most {limits.MAX_NESTING} levels are sure to be read)"
    prefix = "not a frame of this protocol: "
    fields = _decode_fields(frame)
    # Only an integer is looked up: `True` equals 1, and MessagePack's extension types have no hash.
    frame_type = _FRAMES.get(fields[0]) if fields and type(fields[0]) is int else None
    if fields is None or frame_type is None:
        return prefix + reason, None
    name = re.sub("(?<!^)(?=[A-Z])", "_", frame_type.__name__).lower()
    match = _PATH.fullmatch(reason)
    if match is None:
        reason = f"{name}: {reason}"
    else:
        index = int(match["index"])
        path = f"{name}.{frame_type.__struct_fields__[index - 1]}{match['rest']}"
        value = _describe_value(fields[index], match["rest"])
        reason = f"{path}: {match['expected']}{value}"
    return prefix + reason, _find_subject_of_fields(frame_type, fields)


def _decode_fields(frame: bytes) -> list[Any] | None:
    if len(frame) > _MAX_EXPLAINED:
        return None
    try:
        return msgspec.msgpack.decode(frame, type=list[Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _describe_value(value: object, path: str) -> str:
    """Return the number or the length of a field's value, or of an entry of the field."""
    for index in re.findall(r"\[(\d+)\]", path):
        value = cast("list[object]", value)[int(index)]
    if "[...]" in path or isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return f", got {value}"
    if isinstance(value, str | bytes | list | dict):
        return f", got {len(cast('list[object]', value))}"
    return ""


def _find_subject_of_fields(frame_type: type[frames.ToHub], fields: list[Any]) -> int | str | None:
    """Return the subject of the refusal of a frame with a wrong value."""
    match fields[1:2]:
        case [bytes(publisher)] if len(publisher) <= limits.MAX_PUBLISHER:
            return publisher.hex() if frame_type is frames.Publish else None
        case [bool()]:
            return None
        case [int(request)] if 0 <= request <= limits.MAX_NUMBER:
            return request
        case [str(name)] if len(name) <= limits.MAX_NAME:
            return name
        case _:
            return None


def find_fault(message: frames.Publish) -> str | None:
    """Return what is wrong with the topics or the numbers of events, or None."""
    if message.first + len(message.events) - 1 > limits.MAX_NUMBER:
        return f"sequence numbers beyond {limits.MAX_NUMBER}"
    if any(topic.count("/") != 2 or len(topic) > limits.MAX_TOPIC for topic, _ in message.events):
        return f"a topic is not type/study/trial, or longer than {limits.MAX_TOPIC}"
    return None


def find_exceeded_size(frame: bytes, message: frames.ToHub) -> str | None:
    """Return which limit of sizes a large frame exceeds, or None."""
    if len(frame) > limits.MAX_FRAME:
        return f"a frame of {len(frame)} bytes (at most {limits.MAX_FRAME})"
    if isinstance(message, frames.Publish):
        size = max((memoryview(body).nbytes for _, body in message.events), default=0)
        if size > limits.MAX_EVENT:
            return f"an event of {size} bytes (at most {limits.MAX_EVENT})"
    return None
