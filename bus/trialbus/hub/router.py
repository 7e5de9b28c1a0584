"""Router: the socket of the hub, and the keys and roles of its peers."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from trialbus.errors import TrialbusError
from trialbus.hub.flood_guard import FloodGuard
from trialbus.protocol import frames, limits
from trialbus.protocol.endpoint import notice_dead_hosts
from trialbus.protocol.permissions import Role
from trialbus.protocol.security import Gatekeeper

logger = logging.getLogger(__name__)

TURN_FRAMES = 4096
TURN_BYTES = 1 << 20

_REFUSED_LOG_S = 5.0
_MANY_PEERS = 100_000
_LINGER_MS = 500
_DOMAIN = "trialbus"  # of ZAP
_PROBE_S = 1.0  # for another hub on the same socket file to accept a connection
_BAN_S = 10.0  # for a key whose owner floods the hub
_STALL_S = 0.25  # time of the log for a turn, after which another thread reads the socket
_RELIEF_S = 0.01  # between two rounds of that thread
_RELIEF_FRAMES = 20_000  # in one round of that thread
_KEPT_BYTES = 64 << 20  # of what that thread read; publishers send the rest again


class Router:
    """A bound ROUTER socket. One thread uses the socket, and lends it to another by `lent`.

    libzmq ends the process by an assertion if a connection breaks whose input it had stopped at the
    receive mark, and a PING (ZMTP 3.1) follows in what it had read before. So the socket has no
    receive mark and sends no PINGs. Memory is bounded in other ways: the hub drops all connections
    when a peer floods it (`reopen`), and honest peers come back and send again what was not
    acknowledged. While the log stalls, another thread reads what arrives and keeps a part of it.

    Args:
        endpoint: Address to bind the socket to.
        gatekeeper: Decides who may connect, and which messages each peer may send.

    Raises:
        TrialbusError: The address is taken, or cannot be bound.

    Source:
        libzmq 4.3.5, `stream_engine_base_t::out_event` and `process_heartbeat_message`.
    """

    def __init__(self, endpoint: str, gatekeeper: Gatekeeper | None = None) -> None:
        self.counters: Counter[str] = Counter()  #: counters of the hub's status
        self.last_refused = ""  #: reason of the last refusal
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
        """Whether a peer floods the hub, so that `reopen` has to drop the connections."""
        return self._flood.is_exceeded

    @property
    def has_kept(self) -> bool:
        """Whether the next turn has a message that was read while the log stalled."""
        return bool(self._kept)

    def reopen(self) -> None:
        """Drop all connections with their unread messages, and bind again.

        Honest peers connect anew and send again what was not acknowledged. The key of a flooding
        peer is banned for a while.
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
        """Let another thread read the socket while the block takes long, as on a slow disk."""
        self._lent_at = time.monotonic()
        self._holds.release()
        try:
            yield
        finally:
            self._holds.acquire()

    def receive_turn(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield the peer and the parts of each message that the hub handles in one turn.

        A turn ends when nothing more has arrived, and after `TURN_FRAMES` messages or `TURN_BYTES`.
        Messages of a peer that floods the hub count, and are not yielded.
        """
        self._flood.begin_window()
        turn_bytes = 0
        for _ in range(TURN_FRAMES):
            if self._kept:
                peer, parts = self._kept.popleft()
                size = sum(map(len, parts))
                self._kept_bytes -= size
                yield peer, parts
            else:
                try:
                    peer, parts = self._receive()
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
        """Add the cost of the answer to a request to the use that its peer makes of the hub."""
        self._flood.charge(self._sender(peer), message)

    def charge_status(self, peer: bytes, n_entries: int) -> None:
        """Add the cost of a status with sessions and durable names to the use of its peer."""
        self._flood.charge_status(self._sender(peer), n_entries)

    def _sender(self, peer: bytes) -> bytes | str:
        return peer if self._gatekeeper is None else self._keys.get(peer, "")

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
        """Read the socket while the hub waits for the log, to bound what is in memory."""
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
        """Keep a message for the next turn, or drop the message if too much is kept already."""
        size = sum(map(len, parts))
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._kept.append((peer, parts))
            self._kept_bytes += size
        else:
            self.counters["dropped"] += 1

    def send(self, peer: bytes, message: frames.ToClient) -> bool:
        """Send a message; False if the peer has gone, or does not read."""
        try:
            self.socket.send_multipart((peer, frames.encode(message)), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.counters["undeliverable"] += 1  # the peer will ask again
            return False
        return True

    def refuse(self, peer: bytes, code: int, reason: str, about: int | str | None) -> None:
        """Refuse a message: count the refusal, tell the peer, and log one refusal in 5 seconds.

        Args:
            peer: Sender of the message.
            code: One of the codes in `trialbus.protocol.frames`.
            reason: Text for people.
            about: Number of the request, or the session, name or publisher.
        """
        self.counters[f"refused_{code}"] += 1
        self._flood.charge_refusal(self._sender(peer))
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
        """Return why the key of a peer does not allow a message, or None."""
        if self._gatekeeper is None:
            return None
        return self._gatekeeper.forbids(self._keys.get(peer, ""), message)

    def role(self, peer: bytes) -> Role | None:
        """Return the role of a peer's key; without keys, every peer is a service."""
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
            # Before the socket is bound, so that the gatekeeper sees every connection.
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
        # With answers of `limits.BATCH_BYTES`, this bounds the memory that a peer takes.
        router.set(zmq.SNDHWM, 64)
        router.set(zmq.RCVHWM, 0)  # see the class
        router.set(zmq.MAXMSGSIZE, limits.MAX_RECEIVED)
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


_FLOOD_REFUSAL = (
    f"too much for one second (at most {limits.BYTES_PER_SECOND} bytes, "
    f"{limits.FRAMES_PER_SECOND} frames, or fewer costly requests): ignored until it is over"
)


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
