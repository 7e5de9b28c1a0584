"""SessionRegistry: the handling of the frames of sessions, and the key that each session has."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator

from trialbus.hub.log import Change, EventLog
from trialbus.hub.sessions import Sessions
from trialbus.messages.events import TrainerLost
from trialbus.protocol import frames, limits
from trialbus.protocol.status import SessionStatus

logger = logging.getLogger(__name__)

_ANOTHER_KEY = "the session belongs to another key"
_DECLARED_LOST = "the session was declared lost"


class SessionRegistry:
    """The sessions of a hub, and with keys the key that each belongs to.

    Args:
        log: Has the sessions that were alive when the hub ended.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._sessions = Sessions(log.sessions, clock, wall_clock, _read_lost_sessions(log))
        self._keys = dict(log.session_keys)

    def __len__(self) -> int:
        return len(self._sessions)

    def describe(self) -> list[SessionStatus]:
        """Return the state of each live session, for the hub's status."""
        return self._sessions.describe()

    def handle(
        self,
        message: frames.Hello | frames.Ping | frames.Bye,
        peer: bytes,
        key: str,
        change: Change,
    ) -> frames.Seen | frames.Refused | None:
        """Handle a frame of a session and return the answer, which waits for the commit.

        Args:
            message: The frame.
            peer: The connection.
            key: Name of the connection's key; empty without keys.
            change: What this turn adds to the log.
        """
        session = message.session
        if self._keys.get(session, key) != key:
            return frames.Refused(frames.FORBIDDEN, _ANOTHER_KEY, session)
        match message:
            case frames.Hello():
                refusal = self._find_refusal(message, peer)
                if refusal is not None:
                    return frames.Refused(*refusal, session)
                self._sessions.register(message, peer)
                change.sessions[session] = message
                if key:  # again each time: an earlier turn may have failed
                    self._keys[session] = change.session_keys[session] = key
                return frames.Seen(session)
            case frames.Ping():
                if self._sessions.ping(session, peer):
                    return frames.Seen(session)
                return frames.Refused(frames.SESSION_LOST, _DECLARED_LOST, session)
            case frames.Bye():
                if self._sessions.end(session):
                    self._record_end(session, change)
                return None

    def expire(self, change: Change) -> Iterator[TrainerLost]:
        """End the sessions that were silent for too long, and yield the event about each."""
        for event in self._sessions.expire():
            logger.warning(
                "lost %r %r (study %r, trial %s)",
                event.kind,
                event.session,
                event.study,
                event.trial,
            )
            self._record_end(event.session, change)
            yield event

    def _record_end(self, session: str, change: Change) -> None:
        change.sessions[session] = None
        change.session_keys.pop(session, None)
        self._keys.pop(session, None)

    def _find_refusal(self, hello: frames.Hello, peer: bytes) -> tuple[int, str] | None:
        """Return the code and the reason of why a session is not registered, or None."""
        if hello.ttl_ms > limits.MAX_TTL_MS:
            reason = f"hello.ttl_ms: at most {limits.MAX_TTL_MS} (a day), got {hello.ttl_ms}"
            return frames.BAD_FRAME, reason
        if (size := len(frames.encode(hello))) > limits.MAX_HELLO:
            return frames.BAD_FRAME, f"a hello of {size} bytes (at most {limits.MAX_HELLO})"
        if self._sessions.is_lost(hello.session):
            return frames.SESSION_LOST, _DECLARED_LOST
        conflict = self._sessions.find_conflict(hello)
        if conflict is not None:
            return frames.CONFLICT, conflict
        excess = self._sessions.find_exceeded_limit(hello.session, peer)
        return None if excess is None else (frames.TOO_MANY, excess)


def _read_lost_sessions(log: EventLog) -> list[str]:
    try:
        return log.read_lost_sessions()
    except sqlite3.Error as error:
        logger.warning("lost sessions cannot be read from the log: %s", error)
        return []
