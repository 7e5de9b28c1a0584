"""Router: the hub's one socket, and who is behind each peer of it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from trialbus.errors import TrialbusError
from trialbus.hub.flood_guard import FloodGuard
from trialbus.protocol import frames
from trialbus.protocol.endpoint import notice_dead_hosts
from trialbus.protocol.permissions import Role
from trialbus.protocol.security import Gatekeeper

logger = logging.getLogger(__name__)

_REFUSED_LOG_S = 5.0
_MANY_PEERS = 100_000
_LINGER_MS = 500
_DOMAIN = "trialbus"  # of ZAP
_PROBE_S = 1.0  # for another hub on the same socket file to accept a connection
_BAN_S = 10.0  # for a key whose owner floods the hub
_STALL_S = 0.25  # the log may take so long for a turn before another thread reads the socket
_RELIEF_S = 0.01  # between two readings meanwhile
_RELIEF_FRAMES = 20_000  # read in one go meanwhile
_KEPT_BYTES = 64 << 20  # of which so many are kept; the rest is sent again by publishers


class Router:
    """A bound ROUTER socket. Used by one thread, which holds it but for `lent`.

    libzmq ends the process by an assertion if a connection breaks whose input it had stopped at the
    receive mark, and a PING (ZMTP 3.1) follows in what it had read before. So the socket has no
    receive mark and sends no PINGs. What bounds memory instead: a peer that floods is disconnected
    with all others, who come back and send again what was not acknowledged (`reopen`), and while
    the log stalls another thread reads what arrives and keeps a part of it.

    Args:
        endpoint: Where to bind it.
        gatekeeper: Asked about every new connection, and about what each peer says.

    Raises:
        TrialbusError: The address is taken, or cannot be bound.

    Source:
        libzmq 4.3.5, `stream_engine_base_t::out_event` and `process_heartbeat_message`.
    """

    def __init__(self, endpoint: str, gatekeeper: Gatekeeper | None = None) -> None:
        self.counters: Counter[str] = Counter()  #: of the hub, for its status
        self.last_refused = ""  #: why something was refused last
        self._refused_at = 0.0
        self._unlogged = 0  # refusals since the last line about one
        self._endpoint = endpoint
        self._gatekeeper = gatekeeper
        self._keys: dict[bytes, str] = {}  # of peers, where there is a gatekeeper
        self._flood = FloodGuard()
        self._kept: deque[tuple[bytes, list[bytes]]] = deque()
        self._kept_bytes = 0
        self._holds = threading.Lock()
        self._lent_at = 0.0
        self._closed = threading.Event()
        self._open()
        self._holds.acquire()
        self._relief = threading.Thread(target=self._relieve, name="trialbus-relief", daemon=True)
        self._relief.start()

    @property
    def is_flooded(self) -> bool:
        """Whether a peer sends more than anybody needs to; `reopen` gets rid of it."""
        return self._flood.is_exceeded

    @property
    def has_kept(self) -> bool:
        """Whether `receive` has a message that was read while the log stalled."""
        return bool(self._kept)

    def reopen(self) -> None:
        """Drop all connections and what they sent, and bind again.

        Honest peers connect anew and repeat what was not acknowledged. A flooding one with a key
        stays outside for a while.
        """
        if self._gatekeeper is not None:
            for key in self._flood.flooding_senders():
                self._gatekeeper.ban(str(key), _BAN_S)
        self._close_socket(linger_ms=0)
        self._kept.clear()
        self._kept_bytes = 0
        self._keys.clear()
        self._flood.reset()
        self._open()

    @contextmanager
    def lent(self) -> Generator[None]:
        """Let another thread read the socket if the block takes long, as on a slow disk."""
        self._lent_at = time.monotonic()
        self._holds.release()
        try:
            yield
        finally:
            self._holds.acquire()

    def receive(self) -> tuple[bytes, list[bytes]]:
        """Return the next message and its peer; an empty one where the peer floods the hub.

        Raises:
            zmq.Again: There is none.
        """
        if self._kept:
            peer, parts = self._kept.popleft()
            self._kept_bytes -= sum(map(len, parts))
            return peer, parts
        peer, parts = self._receive()
        is_admitted = self._flood.admit(self._sender(peer), sum(map(len, parts)))
        return peer, parts if is_admitted else []

    def charge(self, peer: bytes, message: frames.ToHub) -> None:
        """Count what it costs to answer a peer's request."""
        self._flood.charge(self._sender(peer), message)

    def _sender(self, peer: bytes) -> bytes | str:
        return peer if self._gatekeeper is None else self._keys.get(peer, "")

    def begin_turn(self) -> None:
        """Let the limits of peers begin anew when their second is over."""
        self._flood.begin_window()

    def _receive(self) -> tuple[bytes, list[bytes]]:
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

    def _relieve(self) -> None:
        """Read the socket while its owner waits for the log, so that what arrives is bounded."""
        wait_s = _STALL_S
        while not self._closed.wait(wait_s):
            wait_s = _STALL_S
            if time.monotonic() - self._lent_at < _STALL_S:
                continue
            if not self._holds.acquire(blocking=False):
                continue
            wait_s = _RELIEF_S
            try:
                for _ in range(_RELIEF_FRAMES):
                    self._keep(*self._receive())
            except zmq.ZMQError:
                pass  # nothing more has arrived
            finally:
                self._holds.release()

    def _keep(self, peer: bytes, parts: list[bytes]) -> None:
        """Keep a message for `receive`, or drop it if too much is kept already."""
        size = sum(map(len, parts))
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._kept.append((peer, parts))
            self._kept_bytes += size
        else:
            self.counters["dropped"] += 1

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
        self._flood.charge(self._sender(peer), None)
        self.last_refused = reason
        now = time.monotonic()
        if now - self._refused_at > _REFUSED_LOG_S:
            more = f", and {self._unlogged} more refusals" if self._unlogged else ""
            logger.warning("refused (%d): %s%s", code, reason, more)
            self._refused_at, self._unlogged = now, 0
        else:
            self._unlogged += 1
        self.send(peer, frames.Refused(code, reason, about))

    def forbids(self, peer: bytes, message: frames.ToHub) -> str | None:
        """Return why a peer may not send a message, or None if it may."""
        if self._gatekeeper is None:
            return None
        return self._gatekeeper.forbids(self._keys.get(peer, ""), message)

    def role(self, peer: bytes) -> Role | None:
        """Return what a peer is by its key: everybody is a service where there are no keys."""
        if self._gatekeeper is None:
            return "service"
        grant = self._gatekeeper.grant(self._keys.get(peer, ""))
        return grant.role if grant else None

    def close(self) -> None:
        """Close the socket, giving the last answers a moment to leave."""
        self._closed.set()
        self._holds.release()
        self._relief.join()
        self._close_socket(linger_ms=_LINGER_MS)

    def _open(self) -> None:
        self._context = zmq.Context()
        self._zap: ThreadAuthenticator | None = None
        if self._gatekeeper is not None:
            # Before the socket is bound, so that nobody comes in unasked.
            self._zap = ThreadAuthenticator(self._context)
            self._zap.start()
            self._zap.configure_curve_callback(_DOMAIN, self._gatekeeper)
        self.socket = self._make()
        if self._endpoint.startswith("ipc://"):
            path = Path(self._endpoint.removeprefix("ipc://"))
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                self._close_socket(linger_ms=0)
                raise TrialbusError(
                    f"bus.endpoint={self._endpoint!r} cannot be bound: {error.strerror} "
                    f"({str(path.parent)!r} is its folder); choose another endpoint"
                ) from None
            if _is_served(path):  # libzmq would take the file away from the other hub
                self._close_socket(linger_ms=0)
                raise TrialbusError(
                    f"bus.endpoint={self._endpoint!r} cannot be bound: another hub serves it; "
                    "end that one first, or choose another endpoint"
                )
        try:
            self.socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            self._close_socket(linger_ms=0)
            raise TrialbusError(
                f"bus.endpoint={self._endpoint!r} cannot be bound: {error.strerror}"
            ) from None

    def _close_socket(self, *, linger_ms: int) -> None:
        self.socket.close(linger=linger_ms)
        if self._zap is not None:
            self._zap.stop()
        self._context.term()

    def _make(self) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.LINGER, 0)
        # With answers of `frames.BATCH_BYTES`, this bounds what a peer that does not read costs.
        router.set(zmq.SNDHWM, 64)
        router.set(zmq.RCVHWM, 0)  # see the class
        router.set(zmq.MAXMSGSIZE, frames.MAX_FRAME)
        router.set(zmq.HANDSHAKE_IVL, 10000)
        router.set(zmq.BACKLOG, 4096)
        notice_dead_hosts(router)
        router.set(zmq.IPV6, 1)
        if self._gatekeeper is not None:
            router.set(zmq.CURVE_SERVER, 1)
            router.set(zmq.CURVE_PUBLICKEY, self._gatekeeper.keys.public.encode())
            router.set(zmq.CURVE_SECRETKEY, self._gatekeeper.keys.secret.encode())
            router.set(zmq.ZAP_DOMAIN, _DOMAIN.encode())
        return router


def _is_served(path: Path) -> bool:
    """Tell whether a process listens on a socket file."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True  # its queue of connections is full
        except OSError:
            return False
    return True
