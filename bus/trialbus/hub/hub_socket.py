"""HubSocket: the bound ROUTER socket of the hub, read by a second thread while the log stalls."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from trialbus.errors import TrialbusError
from trialbus.protocol import limits
from trialbus.protocol.endpoint import is_served, notice_dead_hosts
from trialbus.protocol.private_folder import make_private_folder
from trialbus.protocol.security import Gatekeeper

_MANY_PEERS = 100_000
_LINGER_MS = 500
_DOMAIN = "trialbus"  # of ZAP
_STALL_S = 0.25  # time of the log for a turn, after which another thread reads the socket
_RELIEF_S = 0.01  # between two rounds of that thread
_RELIEF_FRAMES = 20_000  # in one round of that thread
_KEPT_BYTES = 64 << 20  # of what that thread read; publishers send the rest again


class HubSocket:
    """A bound ROUTER socket, used by a single thread, which lends the socket by `lent`.

    libzmq ends the process by an assertion if a connection breaks whose input it had stopped at the
    receive mark, and a PING (ZMTP 3.1) follows in what it had read before. So the socket has no
    receive mark and sends no PINGs. Memory is bounded in other ways: the hub drops all connections
    when a peer floods it (`reopen`), and honest peers come back and send again what was not
    acknowledged. While the log stalls, another thread reads what arrives and keeps a part of it.

    Args:
        endpoint: Address to bind the socket to.
        gatekeeper: Decides who may connect.

    Raises:
        TrialbusError: The address is taken, or cannot be bound.

    Source:
        libzmq 4.3.5, `stream_engine_base_t::out_event` and `process_heartbeat_message`.
    """

    def __init__(self, endpoint: str, gatekeeper: Gatekeeper | None = None) -> None:
        self.n_dropped = 0  #: messages dropped because too many arrived while the log stalled
        self._endpoint = endpoint
        self._gatekeeper = gatekeeper
        self._keys: dict[bytes, str] = {}  # of peers, where there is a gatekeeper
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
    def has_kept(self) -> bool:
        """Whether `take_kept` has a message that was read while the log stalled."""
        return bool(self._kept)

    def register(self, poller: zmq.Poller) -> None:
        """Let a poller wait for messages."""
        poller.register(self._socket, zmq.POLLIN)

    def take_kept(self) -> tuple[bytes, list[bytes]]:
        """Return the peer and the parts of the oldest message read while the log stalled."""
        peer, parts = self._kept.popleft()
        self._kept_bytes -= sum(map(len, parts))
        return peer, parts

    def receive(self) -> tuple[bytes, list[bytes]]:
        """Return the peer and the parts of the next message.

        Raises:
            zmq.Again: No message has arrived.
        """
        if self._gatekeeper is None:
            peer, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            return peer, parts
        pieces = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        peer = pieces[0].bytes
        # Of every message: an earlier connection with another key may have had this routing id.
        self._keys.pop(peer, None)
        self._keys[peer] = str(pieces[-1].get("User-Id"))
        if len(self._keys) > _MANY_PEERS:
            del self._keys[next(iter(self._keys))]  # the peer that was silent for longest
        return peer, [piece.bytes for piece in pieces[1:]]

    def send(self, peer: bytes, frame: bytes) -> None:
        """Send a frame to a peer.

        Raises:
            zmq.ZMQError: The peer has gone, or does not read.
        """
        self._socket.send_multipart((peer, frame), zmq.NOBLOCK)

    def find_key(self, peer: bytes) -> str:
        """Return the key that a peer connected with; empty for an unknown key."""
        return self._keys.get(peer, "")

    @contextmanager
    def lent(self) -> Generator[None]:
        """Let another thread read the socket while the block takes long, as on a slow disk."""
        self._lent_at = time.monotonic()
        self._holds.release()
        try:
            yield
        finally:
            self._holds.acquire()

    def reopen(self) -> None:
        """Drop all connections and unread messages, and bind again."""
        self._close_socket(linger_ms=0)
        self._kept.clear()
        self._kept_bytes = 0
        self._keys.clear()
        self._open()

    def close(self) -> None:
        """Close the socket, giving the last answers a moment to leave."""
        self._closed.set()
        self._holds.release()
        self._relief.join()
        self._close_socket(linger_ms=_LINGER_MS)

    def _relieve(self) -> None:
        """Read the socket while the hub waits for the log, to bound the messages in memory."""
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
                    self._keep(*self.receive())
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
            self.n_dropped += 1

    def _open(self) -> None:
        self._context = zmq.Context()
        self._zap: ThreadAuthenticator | None = None
        if self._gatekeeper is not None:
            # Before the socket is bound, so that the gatekeeper sees every connection.
            self._zap = ThreadAuthenticator(self._context)
            self._zap.start()
            self._zap.configure_curve_callback(_DOMAIN, self._gatekeeper)
        self._socket = self._make()
        path: Path | None = None
        if self._endpoint.startswith("ipc://"):
            path = Path(self._endpoint.removeprefix("ipc://"))
            try:
                make_private_folder(path.parent)
            except OSError as error:
                self._close_socket(linger_ms=0)
                raise TrialbusError(
                    f"bus.endpoint={self._endpoint!r} cannot be bound: {error.strerror} "
                    f"({str(path.parent)!r} is its folder); choose another endpoint"
                ) from None
            if is_served(self._endpoint):  # libzmq would take the file away from the other hub
                self._close_socket(linger_ms=0)
                raise TrialbusError(
                    f"bus.endpoint={self._endpoint!r} cannot be bound: another hub serves it; "
                    "end that one first, or choose another endpoint"
                )
        try:
            self._socket.bind(self._endpoint)
            if path is not None:
                path.chmod(0o600)
        except zmq.ZMQError as error:
            self._close_socket(linger_ms=0)
            raise TrialbusError(
                f"bus.endpoint={self._endpoint!r} cannot be bound: {error.strerror}; "
                "choose another endpoint, or end the program that serves there"
            ) from None

    def _close_socket(self, *, linger_ms: int) -> None:
        self._socket.close(linger=linger_ms)
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
