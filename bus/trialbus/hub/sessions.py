"""Sessions: the processes that registered with the hub, and when the hub heard each last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from trialbus.messages.events import TrainerLost
from trialbus.protocol import limits
from trialbus.protocol.frames import Hello
from trialbus.protocol.status import SessionStatus

_STALL_S = 0.5
_LOST_KEPT = 10_000


@dataclass
class _Session:
    hello: Hello
    peer: bytes  # connection that the session was last heard on
    seen: float  # monotonic
    seen_at: float  # seconds since the epoch
    confirmed: bool  # heard since this hub started


class Sessions:
    """Registered sessions and deadlines. No I/O: the hub writes the changes to the log.

    Args:
        sessions: Sessions that were alive when the log was last written. Each gets a whole
            time-to-live to come back, because it may only have lost the hub.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch, for `TrainerLost.last_seen`.
        lost: Sessions that the log declares lost, oldest first.
    """

    def __init__(
        self,
        sessions: dict[str, Hello],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        lost: Iterable[str] = (),
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._expired_at = clock()
        self._lost: dict[str, None] = dict.fromkeys(lost)  # newest last
        self._sessions: dict[str, _Session] = {}
        self._exclusive: dict[tuple[str, str], str] = {}  # session by kind and name
        self._n_per_peer: dict[bytes, int] = {}
        for hello in sessions.values():
            ttl_ms = min(hello.ttl_ms, limits.MAX_TTL_MS)  # a log of an earlier version
            self._add(msgspec.structs.replace(hello, ttl_ms=ttl_ms), b"", confirmed=False)

    def __len__(self) -> int:
        return len(self._sessions)

    def is_lost(self, session: str) -> bool:
        """Tell whether a session was declared lost, which is final: the trial may run again."""
        return session in self._lost

    def find_conflict(self, hello: Hello) -> str | None:
        """Return the description of a live session that excludes a new session, or None."""
        owner = self._exclusive.get((hello.kind, hello.name)) if hello.exclusive else None
        if owner is None or owner == hello.session:
            return None
        description = _describe_owner(self._sessions[owner].hello)
        return f"{hello.kind} {hello.name!r} is already registered ({description})"

    def find_exceeded_limit(self, session: str, peer: bytes) -> str | None:
        """Return which limit a new session of a connection exceeds, or None."""
        if session in self._sessions:
            return None
        if self._n_per_peer.get(peer, 0) >= limits.SESSIONS_PER_CONNECTION:
            return f"more than {limits.SESSIONS_PER_CONNECTION} sessions of one connection"
        if len(self._sessions) >= limits.SESSIONS:
            return f"more than {limits.SESSIONS} sessions of all connections"
        return None

    def register(self, hello: Hello, peer: bytes) -> None:
        """Register a session, or replace the session's registration."""
        if not self._sessions:
            self._expired_at = self._clock()
        self._remove(hello.session)
        self._add(hello, peer, confirmed=True)

    def ping(self, session: str, peer: bytes) -> bool:
        """Take a heartbeat of a session; return False if the session is not registered."""
        registered = self._sessions.get(session)
        if registered is None:
            return False
        registered.seen, registered.seen_at = self._clock(), self._wall_clock()
        registered.confirmed = True
        if registered.peer != peer:
            self._count(registered.peer, -1)
            self._count(peer, 1)
            registered.peer = peer
        return True

    def end(self, session: str) -> bool:
        """End a session on request of the owner; return False if the session is not registered."""
        return self._remove(session)

    def expire(self) -> Iterator[TrainerLost]:
        """End the sessions that were silent for too long, and yield the event about each.

        While the hub itself stood still, it could hear no session: the pause does not count.
        """
        now = self._clock()
        pause = now - self._expired_at
        self._expired_at = now
        if pause > _STALL_S:
            for session in self._sessions.values():
                session.seen = min(now, session.seen + pause)
            return
        for id_, session in list(self._sessions.items()):
            hello = session.hello
            if now - session.seen > hello.ttl_ms / 1000:
                self._remove(id_)
                self._lost[id_] = None
                while len(self._lost) > _LOST_KEPT:
                    del self._lost[next(iter(self._lost))]
                yield TrainerLost(
                    study=hello.study,
                    session=id_,
                    kind=hello.kind,
                    trial=hello.trial,
                    attempt=hello.attempt,
                    last_seen=session.seen_at,
                )

    def describe(self) -> list[SessionStatus]:
        """Return the state of each live session, for the hub's status."""
        now = self._clock()
        return [
            SessionStatus(
                session=id_,
                kind=s.hello.kind,
                name=s.hello.name,
                study=s.hello.study,
                trial=s.hello.trial,
                info=s.hello.info,
                ttl_s=s.hello.ttl_ms / 1000,
                silent_s=now - s.seen,
                confirmed=s.confirmed,
            )
            for id_, s in self._sessions.items()
        ]

    def _add(self, hello: Hello, peer: bytes, *, confirmed: bool) -> None:
        self._sessions[hello.session] = _Session(
            hello, peer, self._clock(), self._wall_clock(), confirmed
        )
        self._count(peer, 1)
        if hello.exclusive:
            self._exclusive[hello.kind, hello.name] = hello.session

    def _remove(self, id_: str) -> bool:
        session = self._sessions.pop(id_, None)
        if session is None:
            return False
        self._count(session.peer, -1)
        key = session.hello.kind, session.hello.name
        if self._exclusive.get(key) == id_:
            del self._exclusive[key]
        return True

    def _count(self, peer: bytes, change: int) -> None:
        """Add to the number of sessions of a connection; forget a connection without any."""
        self._n_per_peer[peer] = self._n_per_peer.get(peer, 0) + change
        if not self._n_per_peer[peer]:
            del self._n_per_peer[peer]


def _describe_owner(hello: Hello) -> str:
    """Return where a session's process runs; the other information may be long."""
    places = [f"{key} {hello.info[key]}" for key in ("host", "pid") if key in hello.info]
    return ", ".join(places) or hello.session
