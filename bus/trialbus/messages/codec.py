"""How events travel: as MessagePack maps, typed by the first part of their topic."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from trialbus.messages.events import BUILT_IN, AnyEvent, Event, UnknownEvent

_E = TypeVar("_E", bound=type[Event])
_T = TypeVar("_T")

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    str(event_type.__struct_config__.tag): msgspec.msgpack.Decoder(event_type)
    for event_type in BUILT_IN
}
_any_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def encode(event: Event) -> bytes:
    """Return the MessagePack map of an event."""
    return _encoder.encode(event)


def decode_with(decoder: msgspec.msgpack.Decoder[_T], data: bytes | memoryview | msgspec.Raw) -> _T:
    """Decode with one error for all that strangers can get wrong.

    Raises:
        msgspec.DecodeError: Also where msgspec lets Python's own errors through: text that is not
            UTF-8, and nesting without end.
    """
    try:
        return decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def decode(topic_: str, body: bytes | memoryview | msgspec.Raw) -> AnyEvent:
    """Return the event in `body`, typed by the first part of its topic.

    Raises:
        msgspec.DecodeError: The body is not MessagePack, or does not fit the type.
    """
    decoder = _decoders.get(topic_.partition("/")[0])
    if decoder is None:
        return UnknownEvent(topic=topic_, data=decode_with(_any_decoder, body))
    event: Event = decode_with(decoder, body)
    return event


def known_types() -> frozenset[str]:
    """Return the tags of the types that `decode` knows, your own included."""
    return frozenset(_decoders)


def register(event_type: _E) -> _E:
    """Make an event type of your own known to `decode`. Use it as a class decorator.

    Raises:
        ValueError: The tag does not start with `x_`, or is taken by another class.
    """
    tag = str(event_type.__struct_config__.tag)
    if not tag.startswith("x_"):
        raise ValueError(
            f"{event_type.__name__}: tag {tag!r} must start with 'x_'; write tag='x_{tag}'"
        )
    known = _decoders.get(tag)
    if known is not None and known.type is not event_type:
        raise ValueError(
            f"{event_type.__name__}: tag {tag!r} is already taken by {known.type.__name__}"
        )
    _decoders[tag] = msgspec.msgpack.Decoder(event_type)
    return event_type
