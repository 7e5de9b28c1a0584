"""Permissions: senders and readers of each message, and the rights of each role's keys.

The hub enforces these tables (`security.Gatekeeper`), and docs/asyncapi.json describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import msgspec

from trialbus.protocol import frames

Role: TypeAlias = Literal["service", "worker", "trainer", "listener"]
Party: TypeAlias = Literal[
    "client", "optimizer", "worker", "trainer", "reporter", "hub", "listener"
]

USER_PREFIX = "x_"
"""Prefix of the types of events that users define."""


class Route(msgspec.Struct, frozen=True):
    """Senders and readers of a type of event. A listener may read every type."""

    senders: tuple[Party, ...]
    """Parties that publish the event."""
    receivers: tuple[Party, ...]
    """Parties that may read the event."""


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """Frames and events that a key of a role may send to the hub and read from the log."""

    frames: frozenset[type[frames.ToHub]]
    """Frames that the hub accepts."""
    publishes: frozenset[str] | None = None
    """Types of events that may be published, besides users' own; None means every type."""
    reads: frozenset[str] | None = None
    """Types of events that may be fetched; None means every type."""
    has_durable_names: bool = True
    """Whether a fetch may name a durable name."""
    sessions: frozenset[str] | None = None
    """Kinds of sessions that may be registered; None means every kind that `SERVICES` lacks."""
    has_all_sessions: bool = False
    """Whether sessions of every kind may be registered, also exclusive ones."""


ROUTES: Mapping[str, Route] = {
    "study_submitted": Route(("client",), ("optimizer", "listener")),
    "study_started": Route(("optimizer",), ("client", "listener")),
    "study_finished": Route(("optimizer",), ("client", "reporter", "trainer", "listener")),
    "trial_requested": Route(("worker", "trainer"), ("optimizer", "listener")),
    "request_withdrawn": Route(("worker", "trainer"), ("optimizer", "listener")),
    "request_refused": Route(("optimizer",), ("worker", "trainer", "listener")),
    "trial_assigned": Route(("optimizer",), ("worker", "trainer", "listener")),
    "trial_started": Route(("trainer",), ("listener",)),
    "param_requested": Route(("trainer",), ("optimizer", "listener")),
    "param_suggested": Route(("optimizer",), ("trainer", "listener")),
    "evaluation_complete": Route(("trainer",), ("optimizer", "worker", "listener")),
    "prune": Route(("optimizer", "client"), ("trainer", "optimizer", "listener")),
    "proceed": Route(("optimizer",), ("trainer", "listener")),
    "artifact_logged": Route(("trainer",), ("optimizer", "listener")),
    "trial_attribute_set": Route(("trainer",), ("optimizer", "listener")),
    "stop": Route(("client",), ("optimizer", "trainer", "listener")),
    "pause": Route(("client",), ("optimizer", "listener")),
    "resume": Route(("client",), ("optimizer", "listener")),
    "enqueue": Route(("client",), ("optimizer", "listener")),
    "trial_finished": Route(("trainer", "worker"), ("optimizer", "worker", "listener")),
    "trial_closed": Route(("optimizer",), ("worker", "listener")),
    "trainer_lost": Route(("hub", "optimizer"), ("optimizer", "worker", "listener")),
    "report_ready": Route(("reporter",), ("client", "listener")),
}
"""Route of every type of event that trialbus defines."""

USER_ROUTE = Route(("client", "trainer"), ("listener",))
"""Route of the types of events that users define."""

SERVICES = frozenset({"optimizer", "worker", "trainer", "reporter"})
"""Kinds of sessions that others rely on: a listener may not pretend to be one."""

_ALL_FRAMES = frozenset[type[frames.ToHub]](get_args(frames.ToHub))
_SESSION_FRAMES = frozenset[type[frames.ToHub]]({frames.Hello, frames.Ping, frames.Bye})


def _permit_parties(*parties: Party) -> Permissions:
    """Return the permissions of a role that acts for parties of a trial."""
    return Permissions(
        frames=_SESSION_FRAMES | {frames.Publish, frames.Fetch},
        publishes=frozenset(
            type_ for type_, route in ROUTES.items() if not set(parties).isdisjoint(route.senders)
        ),
        reads=frozenset(
            type_ for type_, route in ROUTES.items() if not set(parties).isdisjoint(route.receivers)
        ),
        has_durable_names=False,
        sessions=frozenset(parties),
    )


ROLES: Mapping[Role, Permissions] = {
    "service": Permissions(frames=_ALL_FRAMES, has_all_sessions=True),
    # A worker also sends what a killed training left unsent, and its trainings may use its key.
    "worker": _permit_parties("worker", "trainer"),
    "trainer": _permit_parties("trainer"),
    "listener": Permissions(
        frames=_SESSION_FRAMES | {frames.Fetch, frames.Commit, frames.AskStatus},
        publishes=frozenset(),
    ),
}
"""Permissions of every role that a key can have."""
