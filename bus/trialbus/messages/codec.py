"""Codec: events as MessagePack maps, typed by the first part of the topic."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from trialbus.errors import SpecError
from trialbus.messages.event import get_type_name
from trialbus.messages.events import BUILT_IN, AnyEvent, Event, UnknownEvent
from trialbus.messages.topics import ANY, make_topic
from trialbus.study.validation import format_expected

_E = TypeVar("_E", bound=type[Event])
_T = TypeVar("_T")

_USER_PREFIX = "x_"

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    str(event_type.__struct_config__.tag): msgspec.msgpack.Decoder(event_type)
    for event_type in BUILT_IN
}


class _Address(msgspec.Struct, frozen=True):
    """Fields of an event that the topic has too."""

    type: str = ""
    study: str = ""
    trial: int | None = None


_address_decoder = msgspec.msgpack.Decoder(_Address)
_raw_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_any_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def encode(event: Event) -> bytes:
    """Encode an event as a MessagePack map."""
    return _encoder.encode(event)


def decode_with(
    decoder: msgspec.msgpack.Decoder[_T] | msgspec.json.Decoder[_T],
    data: bytes | memoryview | msgspec.Raw,
) -> _T:
    """Decode bytes of another process; raise `msgspec.DecodeError` for anything malformed.

    Raises:
        msgspec.DecodeError: The bytes do not fit the decoder's type. This includes text that is
            not UTF-8 and too deep nesting, for which msgspec raises Python's own errors.
    """
    try:
        return decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def decode(topic: str, body: bytes | memoryview | msgspec.Raw) -> AnyEvent:
    """Decode the body of an event by the type that the topic begins with.

    An event of an unknown type becomes an `UnknownEvent`.

    Raises:
        msgspec.DecodeError: The body is not MessagePack, does not fit the type, or belongs under
            another topic: an event that says `b` under a topic of study `a` was not made by a
            client that may only publish for `a`.
    """
    decoder = _decoders.get(topic.partition("/")[0])
    if decoder is None:
        check_topic(topic, body)
        return UnknownEvent(topic=topic, data=decode_with(_any_decoder, body))
    event: Event = decode_with(decoder, body)
    if event.topic != topic:
        raise msgspec.DecodeError(
            f"the topic is {topic!r}, the event belongs under {event.topic!r}"
        )
    return event


def check_topic(topic: str, body: bytes | memoryview | msgspec.Raw) -> None:
    """Check that the type, study and trial of an event match the topic.

    Raises:
        msgspec.DecodeError: They do not, or the body is not an event. A body that has a key twice
            is none: readers in other languages may take the other value.
    """
    if len(decode_with(_raw_decoder, body)) != _read_map_size(body):
        raise msgspec.DecodeError("the body has a key twice")
    address: _Address = decode_with(_address_decoder, body)
    own_topic = make_topic(address.type, address.study, address.trial)
    if own_topic != topic:
        raise msgspec.DecodeError(f"the topic is {topic!r}, the event belongs under {own_topic!r}")


def _read_map_size(body: bytes | memoryview | msgspec.Raw) -> int:
    """Return the number of entries that a MessagePack map says to have."""
    data = memoryview(body)
    if data[0] & 0xF0 == 0x80:
        return data[0] & 0x0F
    size = {0xDE: 2, 0xDF: 4}.get(data[0], 0)
    return int.from_bytes(data[1 : 1 + size], "big")


def list_known_types() -> frozenset[str]:
    """Return the tags of the event types that `decode` knows, registered types included."""
    return frozenset(_decoders)


def check_type(tag: str) -> None:
    """Check that an event of a type can exist: built in, registered, or a user's (`x_...`).

    Raises:
        SpecError: No event has the type; the message names the nearest type.
    """
    if tag not in _decoders and tag != ANY and not tag.startswith(_USER_PREFIX):
        expected = format_expected(tag, [*_decoders, f"{_USER_PREFIX}<name of a user's type>"])
        raise SpecError("event type", f"{tag!r} does not exist{expected}")


def register(event_type: _E) -> _E:
    """Register an event class of the user with `decode`; for use as a class decorator.

    Raises:
        ValueError: The tag does not start with `x_`, has a `/`, or is taken by another class.
    """
    tag = get_type_name(event_type)
    if not tag.startswith(_USER_PREFIX):
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
