"""Router: the messages of the hub's peers, within the use that each may make of the hub."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import zmq

from trialbus.hub.flood_guard import FloodGuard
from trialbus.protocol import frames, limits
from trialbus.protocol.permissions import Role
from trialbus.protocol.security import Gatekeeper

logger = logging.getLogger(__name__)

TURN_FRAMES = 4096
TURN_BYTES = 1 << 20

_REFUSED_LOG_S = 5.0
_BAN_S = 10.0  # for a key whose owner floods the hub


class PeerSocket(Protocol):
    """The socket of a hub; `hub_socket.HubSocket` is an implementation."""

    n_dropped: int
    """Number of messages that were dropped because too many arrived while the log stalled."""

    @property
    def has_kept(self) -> bool:
        """Whether `take_kept` has a message that was read while the log stalled."""
        ...

    def register(self, poller: zmq.Poller) -> None:
        """Let a poller wait for messages."""
        ...

    def take_kept(self) -> tuple[bytes, list[bytes]]:
        """Return the peer and the parts of the oldest message read while the log stalled."""
        ...

    def receive(self) -> tuple[bytes, list[bytes]]:
        """Return the peer and the parts of the next message, or raise `zmq.Again`."""
        ...

    def send(self, peer: bytes, frame: bytes) -> None:
        """Send a frame, or raise `zmq.ZMQError` where the peer has gone or does not read."""
        ...

    def find_key(self, peer: bytes) -> str:
        """Return the key that a peer connected with; empty for an unknown key."""
        ...

    def lent(self) -> AbstractContextManager[None]:
        """Let another thread read the socket while the block takes long, as on a slow disk."""
        ...

    def reopen(self) -> None:
        """Drop all connections and unread messages, and accept new connections."""

    def close(self) -> None:
        """Close the socket, giving the last answers a moment to leave."""


class Router:
    """Receives and sends the messages of a hub, refuses messages, and bounds each peer's use.

    Args:
        socket: The socket, which is closed with the router.
        gatekeeper: Decides which messages each peer may send.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        socket: PeerSocket,
        gatekeeper: Gatekeeper | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters: Counter[str] = Counter()  #: counters of the hub's status
        self.last_refused = ""  #: reason of the last refusal
        #: Whether the last message that was not sent met a peer that reads too slowly.
        self.is_full = False
        self._refused_at = 0.0
        self._unlogged = 0  # refusals since the last line about one
        self._socket = socket
        self._gatekeeper = gatekeeper
        self._clock = clock
        self._flood = FloodGuard(clock)

    @property
    def is_flooded(self) -> bool:
        """Whether a peer floods the hub, so that `reopen` has to drop the connections."""
        return self._flood.is_exceeded

    @property
    def has_kept(self) -> bool:
        """Whether the next turn has a message that was read while the log stalled."""
        return self._socket.has_kept

    def register(self, poller: zmq.Poller) -> None:
        """Let a poller wait for messages."""
        self._socket.register(poller)

    def reopen(self) -> None:
        """Drop all connections and unread messages.

        Honest peers connect anew and send again what was not acknowledged. The key of a flooding
        peer is banned for a while.
        """
        if self._gatekeeper is not None:
            for key in self._flood.flooding_senders():
                self._gatekeeper.ban(str(key), _BAN_S)
        self._flood.reset()
        self._socket.reopen()

    @contextmanager
    def lent(self) -> Generator[None]:
        """Let another thread read the socket while the block takes long, as on a slow disk."""
        with self._socket.lent():
            yield
        if self._socket.n_dropped:
            self.counters["dropped"] = self._socket.n_dropped

    def receive_turn(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield the peer and the parts of each message that the hub handles in a turn.

        A turn ends when nothing more has arrived, and after `TURN_FRAMES` messages or `TURN_BYTES`.
        Messages of a peer that floods the hub count, and are not yielded.
        """
        self._flood.begin_window()
        turn_bytes = 0
        for _ in range(TURN_FRAMES):
            if self._socket.has_kept:
                peer, parts = self._socket.take_kept()
                size = sum(map(len, parts))
                yield peer, parts
            else:
                try:
                    peer, parts = self._socket.receive()
                except zmq.Again:
                    return
                size = sum(map(len, parts))
                sender = self._sender(peer)
                if self._flood.admit(sender, size):
                    yield peer, parts
                elif self._flood.n_ignored(sender) == 1:
                    self.refuse(peer, frames.TOO_MANY, _FLOOD_REFUSAL, None)
            turn_bytes += size
            if turn_bytes > TURN_BYTES:
                return

    def charge(self, peer: bytes, message: frames.ToHub) -> None:
        """Add the cost of the answer to a request to the peer's use of the hub."""
        self._flood.charge(self._sender(peer), message)

    def charge_status(self, peer: bytes, n_entries: int) -> None:
        """Add the cost of a status with sessions and durable names to the peer's use of the hub."""
        self._flood.charge_status(self._sender(peer), n_entries)

    def _sender(self, peer: bytes) -> bytes | str:
        return peer if self._gatekeeper is None else self._socket.find_key(peer)

    def send(self, peer: bytes, message: frames.ToClient) -> bool:
        """Send a message; False if the peer has gone, or does not read (`is_full`)."""
        try:
            self._socket.send(peer, frames.encode(message))
        except zmq.ZMQError as error:
            self.is_full = error.errno == zmq.EAGAIN
            self.counters["undeliverable"] += 1  # the peer will ask again
            return False
        return True

    def refuse(self, peer: bytes, code: int, reason: str, about: int | str | None) -> None:
        """Refuse a message: count the refusal, answer the peer, and log a refusal every 5 seconds.

        Args:
            peer: Sender of the message.
            code: One of the codes in `trialbus.protocol.frames`.
            reason: Text for people.
            about: Number of the request, or the session, name or publisher.
        """
        self.counters[f"refused_{code}"] += 1
        self._flood.charge_refusal(self._sender(peer))
        self.last_refused = reason
        now = self._clock()
        if now - self._refused_at > _REFUSED_LOG_S:
            more = f", and {self._unlogged} more refusals" if self._unlogged else ""
            logger.warning("refused (%d): %s%s", code, reason, more)
            self._refused_at, self._unlogged = now, 0
        else:
            self._unlogged += 1
        self.send(peer, frames.Refused(code, reason, about))

    def forbids(self, peer: bytes, message: frames.ToHub) -> str | None:
        """Return why the key of a peer does not allow a message, or None."""
        if self._gatekeeper is None:
            return None
        return self._gatekeeper.forbids(self._socket.find_key(peer), message)

    def role(self, peer: bytes) -> Role | None:
        """Return the role of a peer's key; without keys, every peer is a service."""
        if self._gatekeeper is None:
            return "service"
        grant = self._gatekeeper.grant(self._socket.find_key(peer))
        return grant.role if grant else None

    def key_name(self, peer: bytes) -> str:
        """Return the name of a peer's key; empty without keys."""
        if self._gatekeeper is None:
            return ""
        grant = self._gatekeeper.grant(self._socket.find_key(peer))
        return grant.name if grant else ""

    def close(self) -> None:
        """Close the socket, giving the last answers a moment to leave."""
        self._socket.close()


_FLOOD_REFUSAL = (
    f"too much for one second (at most {limits.BYTES_PER_SECOND} bytes, "
    f"{limits.FRAMES_PER_SECOND} frames, or fewer costly requests): ignored until the next second"
)
