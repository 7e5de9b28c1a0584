"""Sessions: the processes that registered with the hub, and when each was last heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trialbus.messages.events import TrainerLost
from trialbus.protocol.frames import Hello
from trialbus.protocol.status import SessionStatus

_STALL_S = 0.5
_LOST_KEPT = 10_000


@dataclass
class _Session:
    hello: Hello
    seen: float  # monotonic
    seen_at: float  # seconds since the epoch
    confirmed: bool  # heard from since this hub started


class Sessions:
    """The registered sessions and their deadlines. No I/O: the hub writes the changes to its log.

    Args:
        sessions: Sessions that were alive when the log was last written. Each gets one whole
            time-to-live to come back, for it may only have lost the hub.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch, for `TrainerLost.last_seen`.
    """

    def __init__(
        self,
        sessions: dict[str, Hello],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._checked = now = clock()
        self._lost: dict[str, None] = {}  # newest last
        self._sessions = {
            id_: _Session(hello, seen=now, seen_at=wall_clock(), confirmed=False)
            for id_, hello in sessions.items()
        }

    def __len__(self) -> int:
        return len(self._sessions)

    def is_lost(self, session: str) -> bool:
        """Tell whether a session was declared lost, which it stays: its trial may run again."""
        return session in self._lost

    def hello(self, hello: Hello) -> str | None:
        """Register a session and return why it cannot be, or None."""
        if hello.exclusive:
            for other in self._sessions.values():
                if (
                    other.hello.session != hello.session
                    and other.hello.exclusive
                    and (other.hello.kind, other.hello.name) == (hello.kind, hello.name)
                ):
                    owner = _describe_owner(other.hello)
                    return f"{hello.kind} {hello.name!r} is already here ({owner})"
        if not self._sessions:
            self._checked = self._clock()
        self._sessions[hello.session] = _Session(
            hello, self._clock(), self._wall_clock(), confirmed=True
        )
        return None

    def ping(self, session: str) -> bool:
        """Take a heartbeat of a session; return False if the session is not registered."""
        registered = self._sessions.get(session)
        if registered is None:
            return False
        registered.seen, registered.seen_at = self._clock(), self._wall_clock()
        registered.confirmed = True
        return True

    def bye(self, session: str) -> bool:
        """End a session at its owner's wish; return False if the session is not registered."""
        return self._sessions.pop(session, None) is not None

    def expire(self) -> Iterator[TrainerLost]:
        """End the sessions that were silent for too long, and yield the event about each.

        While the hub itself stood still, no session could be heard: the pause does not count.
        """
        now = self._clock()
        pause = now - self._checked
        self._checked = now
        if pause > _STALL_S:
            for session in self._sessions.values():
                session.seen = min(now, session.seen + pause)
            return
        for id_, session in list(self._sessions.items()):
            hello = session.hello
            if now - session.seen > hello.ttl_ms / 1000:
                del self._sessions[id_]
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


def _describe_owner(hello: Hello) -> str:
    return ", ".join(f"{key} {value}" for key, value in hello.info.items()) or hello.session
