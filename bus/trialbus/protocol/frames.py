"""Frames between a client and the hub, as docs/protocol.md specifies them.

Each message is one frame that holds one MessagePack array `[op, ...]`. Receivers ignore fields
they do not know at the end of an array and fill in missing ones that have a default, so either
side may be the older one.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from trialbus.messages import codec, events
from trialbus.protocol.status import HubStatus, Info

PROTOCOL = 1

#: Largest frame the hub takes, in bytes.
MAX_FRAME = 8 << 20
#: Largest event, in bytes.
MAX_EVENT = 1 << 20
#: Largest batch of events that a publisher sends, or the hub answers, in one frame.
BATCH_BYTES = 256 << 10
BATCH_EVENTS = 512

# What a stranger may say is bounded before anything else sees it.
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Offset: TypeAlias = Annotated[int, msgspec.Meta(ge=-2, lt=1 << 62)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
PublisherId: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
Patterns: TypeAlias = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=64)]

#: Values of `Fetch.offset` that are not offsets.
NOW = -1
EARLIEST = -2

# Codes of `Refused`; the numbers follow HTTP's, for people.
BAD_FRAME = 400
FORBIDDEN = 403
SESSION_LOST = 410
CONFLICT = 409
OUT_OF_RANGE = 416
TOO_MANY = 429
NO_SPACE = 507


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    pass


class Publish(_Frame, frozen=True, tag=1):
    """Client: events `first, first + 1, ...` of a publisher, each a pair of topic and body.

    `base` is the oldest sequence number the publisher still holds: when the hub lacks something
    before it, that is gone for good and is counted as lost instead of being asked for for ever.
    """

    publisher: PublisherId
    first: Number
    events: list[tuple[str, msgspec.Raw]]
    base: Number = 1


class Fetch(_Frame, frozen=True, tag=2):
    """Client: send me up to `max_events` events from `offset` that match one of `patterns`.

    The hub answers at once, or when something matches, or after `wait_ms`. With a `name`, its
    committed offset takes the place of `offset`; a name that is new is committed at `offset`.
    An `offset` of NOW or EARLIEST, or a `name`, is answered at once, so that the client knows
    the number to go on from.

    With `answers` above 1 it stands, for as long as each answer brings the client to the end of
    the log: so many answers come, one after the other, within `wait_ms` of the first wait.
    """

    request: Number
    offset: Offset
    patterns: Patterns
    max_events: Number = BATCH_EVENTS
    wait_ms: Number = 0
    name: Name | None = None
    answers: Number = 1


class Commit(_Frame, frozen=True, tag=3):
    """Client: everything before `offset` is dealt with for the durable name."""

    name: Name
    offset: Number


class Hello(_Frame, frozen=True, tag=4):
    """Client: I am alive; if I am silent for `ttl_ms`, publish `trainer_lost` about me.

    `exclusive` lets only one live session of this kind and name exist.
    """

    session: Name
    kind: Name
    name: Name
    ttl_ms: Number
    study: Name = ""
    trial: Number | None = None
    attempt: Number | None = None
    info: Info = {}
    exclusive: bool = False


class Ping(_Frame, frozen=True, tag=5):
    """Client: still alive."""

    session: Name


class Bye(_Frame, frozen=True, tag=6):
    """Client: this session ends as it should."""

    session: Name


class AskStatus(_Frame, frozen=True, tag=7):
    """Client: send me your counters."""

    request: Number


class Forget(_Frame, frozen=True, tag=8):
    """Client: remove the events of a finished study, or a durable name.

    The hub says no while the study runs, or while a durable name has not read all of it, unless
    with `force`.
    """

    request: Number
    study: Name | None = None
    name: Name | None = None
    force: bool = False


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event as the log holds it.

    Attributes:
        offset: Its place in the log.
        publisher: Id of its publisher.
        seq: Its number among the publisher's events, from 1. Publisher and seq name it for ever.
        topic: `type/study/trial`.
        body: The MessagePack map.
    """

    offset: int
    publisher: bytes
    seq: int
    topic: str
    body: msgspec.Raw

    @property
    def event(self) -> events.AnyEvent:
        """The typed event.

        Raises:
            msgspec.DecodeError: The body does not fit its type.
        """
        return codec.decode(self.topic, self.body)


class Ack(_Frame, frozen=True, tag=11):
    """Hub: every event of the publisher up to `last` is in the log, on disk."""

    publisher: bytes
    last: int


class Events(_Frame, frozen=True, tag=12):
    """Hub: an answer to a Fetch. Go on from `next`; the log ends before `end`.

    While it is followed by `more`, the Fetch stands, and the next answer begins at `next`.
    """

    request: int
    next: int
    end: int
    records: list[Record]
    more: bool = False


class Committed(_Frame, frozen=True, tag=13):
    """Hub: the answer to a Commit, when it is on disk."""

    name: str
    offset: int


class Seen(_Frame, frozen=True, tag=14):
    """Hub: the answer to Hello and Ping."""

    session: str


class Welcome(_Frame, frozen=True, tag=15):
    """Hub: the first frame of every connection."""

    protocol: int
    log_id: str
    end: int


class Status(_Frame, frozen=True, tag=16):
    """Hub: the answer to AskStatus."""

    request: int
    status: HubStatus


class Forgotten(_Frame, frozen=True, tag=17):
    """Hub: the answer to a Forget: the name is gone, the events go from now on."""

    request: int


class Refused(_Frame, frozen=True, tag=19):
    """Hub: no, and why. `about` is the request, session or name that it concerns."""

    code: int
    reason: str
    about: int | str | None = None


ToHub: TypeAlias = Publish | Fetch | Commit | Hello | Ping | Bye | AskStatus | Forget
ToClient: TypeAlias = Ack | Events | Committed | Seen | Welcome | Status | Forgotten | Refused

_encoder = msgspec.msgpack.Encoder()
_to_hub: msgspec.msgpack.Decoder[ToHub] = msgspec.msgpack.Decoder(ToHub)
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)

encode = _encoder.encode


def decode_to_hub(frame: bytes) -> ToHub:
    """Return the message in a frame.

    Raises:
        msgspec.DecodeError: It holds none that a client may send.
    """
    return codec.decode_with(_to_hub, frame)


def decode_to_client(frame: bytes) -> ToClient:
    """Return the message in a frame.

    Raises:
        msgspec.DecodeError: It holds none that the hub sends.
    """
    return codec.decode_with(_to_client, frame)
