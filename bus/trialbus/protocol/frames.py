"""Frames between a client and the hub, specified in docs/protocol.md.

Each message is one frame that holds one MessagePack array `[op, ...]`. Receivers ignore fields
they do not know at the end of an array and fill in missing ones that have a default, so either
side may be the older one.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, TypeAlias

import msgspec

from trialbus.messages import codec, events
from trialbus.protocol import limits
from trialbus.protocol.status import HubStatus, Info

PROTOCOL = 1

# Bounds of a stranger's values, checked as the frame is decoded.
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=limits.MAX_NUMBER)]
Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=limits.MAX_NUMBER)]
Offset: TypeAlias = Annotated[int, msgspec.Meta(ge=-2, le=limits.MAX_NUMBER)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.MAX_NAME)]
Pattern: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.MAX_TOPIC)]
PublisherId: TypeAlias = Annotated[
    bytes, msgspec.Meta(min_length=1, max_length=limits.MAX_PUBLISHER)
]
Patterns: TypeAlias = Annotated[
    list[Pattern], msgspec.Meta(min_length=1, max_length=limits.PATTERNS)
]

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
    """Client: events of a publisher, in the order of the sequence numbers."""

    publisher: PublisherId
    """Secret of the publisher, which the client chose at random; see `derive_publisher_id`."""
    first: Number
    """Sequence number of the first event; the others follow without a gap."""
    events: list[tuple[str, msgspec.Raw]]
    """Topic and body of each event."""
    base: Number = 1
    """Oldest sequence number that the publisher still holds. Events before `base` that the hub
    lacks are gone for good: the hub counts them as lost and does not ask for them."""
    acknowledged: Number = 0
    """Sequence number up to which the hub acknowledged; 0 for nothing. A log that has fewer events
    lost its tail."""


class Fetch(_Frame, frozen=True, tag=2):
    """Client: a request for the events of the log from an offset on.

    The hub answers at once, or when an event matches, or after `wait_ms`. A fetch with an `offset`
    of NOW or EARLIEST, or with a `name`, is answered at once, so that the client learns the offset
    to continue from.

    A fetch with `answers` above 1 stands for as long as each answer brings the client to the end of
    the log.
    """

    request: Number
    """Number of the request, which its answers repeat."""
    offset: Offset
    """Offset of the first event; NOW (-1) or EARLIEST (-2) in place of one."""
    patterns: Patterns
    """Patterns `type/study/trial`, each part a value or `*`; an event matches at least one."""
    max_events: Positive = limits.BATCH_EVENTS
    """Most events in one answer."""
    wait_ms: Number = 0
    """Milliseconds to wait for an event that matches, over all answers; 0 answers at once."""
    name: Name | None = None
    """Durable name, whose committed offset takes the place of `offset`. A new name is committed at
    `offset`."""
    answers: Number = 1
    """Most answers to this fetch, one after the other."""
    reader: Name = ""
    """Id of the subscriber, chosen at random, that reads under `name` from now on."""


class Commit(_Frame, frozen=True, tag=3):
    """Client: a durable name has dealt with every event before an offset."""

    name: Name
    """Durable name."""
    offset: Number
    """Offset of the first event that is not dealt with."""
    reader: Name = ""
    """Id of the subscriber; the hub refuses the commit of one that another has taken over from."""


class Hello(_Frame, frozen=True, tag=4):
    """Client: the start of a session; `trainer_lost` is published when the session falls silent."""

    session: Name
    """Id of the session, which the client chose at random."""
    kind: Name
    """What the process is: `trainer`, `worker`, `optimizer`, `reporter` or `monitor`."""
    name: Name
    """Name of the process, for people; with `exclusive`, unique among sessions."""
    ttl_ms: Number
    """Milliseconds of silence after which the session counts as lost."""
    study: Name = ""
    """Study that the process belongs to; empty for all."""
    trial: Number | None = None
    """Number of the trial that a trainer runs."""
    attempt: Number | None = None
    """Attempt of that trial."""
    info: Info = {}
    """What the process shows of itself in `trialbus status`."""
    exclusive: bool = False
    """Whether the hub refuses every other live session of this kind and name."""


class Ping(_Frame, frozen=True, tag=5):
    """Client: the heartbeat of a session."""

    session: Name
    """Id of the session."""


class Bye(_Frame, frozen=True, tag=6):
    """Client: the orderly end of a session, without a `trainer_lost`."""

    session: Name
    """Id of the session."""


class AskStatus(_Frame, frozen=True, tag=7):
    """Client: a request for the status of the hub."""

    request: Number
    """Number of the request, which the answer repeats."""


class Forget(_Frame, frozen=True, tag=8):
    """Client: a request to remove a durable name, or the events of a finished study.

    The hub refuses while the study runs, and while a durable name has not read all of the study
    unless with `force`.
    """

    request: Number
    """Number of the request, which the answer repeats."""
    study: Name | None = None
    """Study whose events are removed."""
    name: Name | None = None
    """Durable name that is removed."""
    force: bool = False
    """Whether events that a durable name has not read are removed, too."""


def derive_publisher_id(secret: bytes) -> bytes:
    """Return the id of a publisher in records: the BLAKE2b digest of the id in frames.

    Whoever reads records cannot publish in the name of their publisher.
    """
    return hashlib.blake2b(secret, digest_size=16).digest()


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event of the log. Publisher and sequence number identify the event for ever."""

    offset: int
    """Position of the event in the log."""
    publisher: bytes
    """Id of the publisher of the event."""
    seq: int
    """Sequence number of the event among those of its publisher, from 1."""
    topic: str
    """Topic `type/study/trial`."""
    body: msgspec.Raw
    """MessagePack map of the event."""

    @property
    def event(self) -> events.AnyEvent:
        """The typed event.

        Raises:
            msgspec.DecodeError: The body does not fit its type.
        """
        return codec.decode(self.topic, self.body)


class Ack(_Frame, frozen=True, tag=11):
    """Hub: the acknowledgement of a publisher's events, which are on disk."""

    publisher: bytes
    """Id of the publisher."""
    last: int
    """Sequence number of the newest event that the log has; the log has all before it."""
    window: int = limits.MIN_WINDOW
    """Bytes of events that the publisher may send before the next acknowledgement."""


class Events(_Frame, frozen=True, tag=12):
    """Hub: an answer to a Fetch."""

    request: int
    """Number of the request."""
    next: int
    """Offset from which the client continues."""
    end: int
    """Offset that the next event of the log will get."""
    records: list[Record]
    """Events that match, in the order of the log."""
    more: bool = False
    """Whether the Fetch stands: another answer will follow, and begin at `next`."""


class Committed(_Frame, frozen=True, tag=13):
    """Hub: the answer to a Commit, which is on disk."""

    name: str
    """Durable name."""
    offset: int
    """Offset that was committed."""


class Seen(_Frame, frozen=True, tag=14):
    """Hub: the answer to a Hello or a Ping."""

    session: str
    """Id of the session."""


class Welcome(_Frame, frozen=True, tag=15):
    """Hub: the first frame of every connection."""

    protocol: int
    """Version of the protocol."""
    log_id: str
    """Id of the log, which another log in its place does not have."""
    end: int
    """Offset that the next event of the log will get."""


class Status(_Frame, frozen=True, tag=16):
    """Hub: the answer to an AskStatus."""

    request: int
    """Number of the request."""
    status: HubStatus
    """State of the hub at this moment."""


class Forgotten(_Frame, frozen=True, tag=17):
    """Hub: the answer to a Forget. The durable name is gone, or the removal of events begins."""

    request: int
    """Number of the request."""


class Refused(_Frame, frozen=True, tag=19):
    """Hub: the refusal of a frame."""

    code: int
    """Kind of the refusal: 400, 403, 409, 410, 416, 429 or 507."""
    reason: str
    """Reason in a sentence, for people."""
    about: int | str | None = None
    """Request, session or durable name that was refused; null where the frame had none."""


ToHub: TypeAlias = Publish | Fetch | Commit | Hello | Ping | Bye | AskStatus | Forget
ToClient: TypeAlias = Ack | Events | Committed | Seen | Welcome | Status | Forgotten | Refused

_encoder = msgspec.msgpack.Encoder()
_to_hub: msgspec.msgpack.Decoder[ToHub] = msgspec.msgpack.Decoder(ToHub)
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)

encode = _encoder.encode


def decode_to_hub(frame: bytes) -> ToHub:
    """Return the message in a frame of a client.

    Raises:
        msgspec.DecodeError: The frame holds no message that a client may send.
    """
    return codec.decode_with(_to_hub, frame)


def decode_to_client(frame: bytes) -> ToClient:
    """Return the message in a frame of the hub.

    Raises:
        msgspec.DecodeError: The frame holds no message that the hub sends.
    """
    return codec.decode_with(_to_client, frame)
