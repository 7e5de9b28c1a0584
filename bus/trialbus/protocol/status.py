"""HubStatus: the answer of a hub to a client that asks for the status."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from trialbus.protocol import limits

InfoText: TypeAlias = Annotated[str, msgspec.Meta(max_length=limits.MAX_NAME)]
#: A value that a session shows of itself.
InfoValue: TypeAlias = InfoText | bool | int | float
#: What a session shows of itself, by name.
Info: TypeAlias = Annotated[dict[InfoText, InfoValue], msgspec.Meta(max_length=limits.MAX_INFO)]


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A session that the hub takes for alive."""

    session: str
    """Id of the session."""
    kind: str
    """What the process is: `trainer`, `worker`, `optimizer`, `reporter` or `monitor`."""
    name: str = ""
    """Name of the process, for people."""
    study: str = ""
    """Study that the process belongs to; empty for all."""
    trial: int | None = None
    """Number of the trial that a trainer runs."""
    info: Info = {}
    """What the process shows of itself."""
    ttl_s: float = 0.0
    """Seconds of silence after which the session counts as lost."""
    silent_s: float = 0.0
    """Seconds since the session was heard last."""
    confirmed: bool = True
    """Whether the session was heard since the hub started."""


class DurableNameStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far the subscriber of a durable name has come."""

    offset: int
    """Offset of the next event that the subscriber will read."""
    lag: int
    """Events in the log from that offset on."""


class RetentionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Which events the hub has removed from the log, or is about to remove."""

    removed: int = 0
    """Events removed since the hub started."""
    removing: list[str] = []
    """Studies with a removal of events under way."""
    held_back: dict[str, list[str]] = {}
    """Studies whose events stay because of durable names that have not read them, with these."""


class HubStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State of a hub at a moment.

    Either side may be the older one: unknown fields are ignored, missing ones have their default.
    """

    log_id: str
    """Id of the log, which another log in its place does not have."""
    end: int
    """Offset that the next event will get."""
    damaged: int = 0
    """Events and entries of the log found damaged or gone since the hub started; none is used."""
    lost: int = 0
    """Offsets whose events are lost for good: a missing tail, or what a repair left out."""
    endpoint: str = ""
    """Address at which the hub listens."""
    path: str = ""
    """File of the log, on the hub's machine."""
    pid: int = 0
    """Process id of the hub."""
    up_s: float = 0.0
    """Seconds since the hub started."""
    role: str | None = None
    """Role of the key of the client that asks; `service` where no keys are in use."""
    parked: int = 0
    """Fetches that wait for events."""
    durable: dict[str, DurableNameStatus] = {}
    """Durable names, with how far they have come."""
    sessions: list[SessionStatus] = []
    """Sessions that are alive."""
    retention: RetentionStatus = msgspec.field(default_factory=RetentionStatus)
    """Events that were removed, or wait to be."""
    counters: dict[str, int] = {}
    """Counted since the hub started, by name; docs/protocol.md lists them."""
    last_refused: str = ""
    """Why the hub refused something the last time."""
