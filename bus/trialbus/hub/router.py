"""Router: the hub's one socket, and who is behind each peer of it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from trialbus.errors import TrialbusError
from trialbus.protocol import frames
from trialbus.protocol.security import Gatekeeper, Role

logger = logging.getLogger(__name__)

_REFUSED_LOG_S = 5.0
_MANY_PEERS = 100_000
_LINGER_MS = 500
_DOMAIN = "trialbus"  # of ZAP


class Router:
    """A bound ROUTER socket. Used by one thread.

    Args:
        endpoint: Where to bind it.
        gatekeeper: Asked about every new connection, and about what each peer says.

    Raises:
        TrialbusError: The address is taken, or cannot be bound.
    """

    def __init__(self, endpoint: str, gatekeeper: Gatekeeper | None = None) -> None:
        self.counters: Counter[str] = Counter()  #: of the hub, for its status
        self.last_refused = ""  #: why something was refused last
        self._refused_at = 0.0
        self._gatekeeper = gatekeeper
        self._keys: dict[bytes, str] = {}  # of peers, where there is a gatekeeper
        self._context = zmq.Context()
        self._zap: ThreadAuthenticator | None = None
        if gatekeeper is not None:
            # Before the socket is bound, so that nobody comes in unasked.
            self._zap = ThreadAuthenticator(self._context)
            self._zap.start()
            self._zap.configure_curve_callback(_DOMAIN, gatekeeper)
        self.socket = self._make()
        if endpoint.startswith("ipc://"):
            folder = Path(endpoint.removeprefix("ipc://")).parent
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise TrialbusError(
                f"bus.endpoint={endpoint!r} cannot be bound: {error.strerror}"
            ) from None

    def receive(self) -> tuple[bytes, list[bytes]]:
        """Return a message and whose it is.

        Raises:
            zmq.Again: There is none.
        """
        if self._gatekeeper is None:
            peer, *parts = self.socket.recv_multipart(zmq.NOBLOCK)
            return peer, parts
        pieces = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        peer = pieces[0].bytes
        if peer not in self._keys:
            if len(self._keys) > _MANY_PEERS:
                self._keys.clear()
            self._keys[peer] = str(pieces[-1].get("User-Id"))
        return peer, [piece.bytes for piece in pieces[1:]]

    def send(self, peer: bytes, message: frames.ToClient) -> bool:
        """Send a message; False if the peer is gone, or does not read."""
        try:
            self.socket.send_multipart((peer, frames.encode(message)), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.counters["undeliverable"] += 1  # whatever it missed, it asks for again
            return False
        return True

    def refuse(self, peer: bytes, code: int, reason: str, about: int | str | None) -> None:
        """Tell a peer that what it sent is refused, and the hub's log, though not time and again.

        Args:
            peer: Who sent it.
            code: One of `trialbus.protocol.frames`.
            reason: For people.
            about: What was sent: the number of a request, or a name.
        """
        self.counters[f"refused_{code}"] += 1
        now = time.monotonic()
        if reason != self.last_refused or now - self._refused_at > _REFUSED_LOG_S:
            logger.warning("refused (%d): %s", code, reason)
            self.last_refused, self._refused_at = reason, now
        self.send(peer, frames.Refused(code, reason, about))

    def forbids(self, peer: bytes, message: frames.ToHub) -> str | None:
        """Return why a peer may not send a message, or None if it may."""
        if self._gatekeeper is None:
            return None
        return self._gatekeeper.forbids(self._keys[peer], message)

    def role(self, peer: bytes) -> Role | None:
        """Return what a peer is by its key: everybody is a service where there are no keys."""
        if self._gatekeeper is None:
            return "service"
        grant = self._gatekeeper.grant(self._keys[peer])
        return grant.role if grant else None

    def close(self) -> None:
        """Close the socket, giving the last answers a moment to leave."""
        self.socket.close(linger=_LINGER_MS)
        if self._zap is not None:
            self._zap.stop()
        self._context.term()

    def _make(self) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.LINGER, 0)
        # With answers of at most `wire.BATCH_BYTES`, this bounds what one that does not read costs.
        router.set(zmq.SNDHWM, 64)
        # What a thousand publishers send faster than the disk takes it stays with them.
        router.set(zmq.RCVHWM, 4)
        router.set(zmq.MAXMSGSIZE, frames.MAX_FRAME)
        router.set(zmq.HEARTBEAT_IVL, 5000)
        router.set(zmq.HEARTBEAT_TIMEOUT, 15000)
        router.set(zmq.HANDSHAKE_IVL, 10000)
        router.set(zmq.BACKLOG, 4096)
        router.set(zmq.TCP_KEEPALIVE, 1)
        router.set(zmq.IPV6, 1)
        if self._gatekeeper is not None:
            router.set(zmq.CURVE_SERVER, 1)
            router.set(zmq.CURVE_PUBLICKEY, self._gatekeeper.keys.public.encode())
            router.set(zmq.CURVE_SECRETKEY, self._gatekeeper.keys.secret.encode())
            router.set(zmq.ZAP_DOMAIN, _DOMAIN.encode())
        return router
