"""Network: connections that lose what is on the way when they break, as TCP under ZeroMQ does.

On a live connection frames arrive in order. A frame is lost alone only where the real system may
lose it so: the hub's answer to a peer that does not read, which the hub notices, and frames that
arrive while the hub waits for its disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

import zmq

from simulation.world import Stepper, World
from trialbus.client.part_driver import PartDriver
from trialbus.protocol import frames
from trialbus.protocol.security import Gatekeeper

ENDPOINT = "ipc:///simulated/hub.sock"
_LATENCY_S = 0.02
_RECONNECT_S = (0.05, 2.0)
_NOTICE_S = 10.0  # after which a partition breaks the connection


class Connection:
    """A connection of a client to the hub."""

    def __init__(self, network: Network, client: SimulatedLink, peer: bytes) -> None:
        self.network = network
        self.client = client
        self.peer = peer
        self.is_open = True
        self.is_draining = False  # the client has died, and what it sent still arrives
        self._socket = network.socket
        self.is_full = False  # the client does not read: the hub's answers find no room
        self.is_welcome = False  # whether the hub has answered
        self._to_hub_at = self._to_client_at = 0.0

    def send_to_hub(self, parts: list[bytes]) -> None:
        self._to_hub_at = self._arrival(self._to_hub_at)
        self.network.world.call_at(self._to_hub_at, lambda: self._arrive_at_hub(parts))

    def send_to_client(self, frame: bytes) -> None:
        self._to_client_at = self._arrival(self._to_client_at)
        self.network.world.call_at(self._to_client_at, lambda: self._arrive_at_client(frame))

    def delay(self, seconds: float) -> None:
        """Let everything that is sent from now on arrive later."""
        until = self.network.world.now + seconds
        self._to_hub_at = max(self._to_hub_at, until)
        self._to_client_at = max(self._to_client_at, until)

    def close(self) -> None:
        """Break the connection; what has not arrived is lost."""
        if self.is_open:
            self.is_open = False
            self.network.connections.pop(self.peer, None)
            self.client.on_disconnect(self)

    def _arrival(self, last: float) -> float:
        world = self.network.world
        return max(last, world.now + world.seconds(0.0, _LATENCY_S))

    def _arrive_at_hub(self, parts: list[bytes]) -> None:
        socket = self.network.socket
        if socket is not None and socket is self._socket and (self.is_open or self.is_draining):
            socket.arrive(self.peer, parts)

    def _arrive_at_client(self, frame: bytes) -> None:
        if self.is_open:
            self.client.arrive(frame)


class Network:
    """The connections of all clients, and the socket of the hub that runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.connections: dict[bytes, Connection] = {}
        self.socket: SimulatedSocket | None = None
        self._n_peers = 0

    def connect(self, client: SimulatedLink) -> Connection | None:
        """Return a new connection; None while no hub listens or the client is cut off."""
        if self.socket is None or client.cut_off_until > self.world.now:
            return None
        self._n_peers += 1
        connection = Connection(self, client, b"%d" % self._n_peers)
        self.connections[connection.peer] = connection
        connection.send_to_hub([b""])
        return connection

    def break_all(self) -> None:
        for connection in list(self.connections.values()):
            connection.close()


class SimulatedSocket:
    """The hub's end of all connections: a `trialbus.hub.router.PeerSocket`."""

    has_kept = False

    def __init__(
        self, network: Network, stepper: Stepper, on_operation: Callable[[], object]
    ) -> None:
        self.n_dropped = 0
        self._on_operation = on_operation  # the process may die at any
        self._network = network
        self._stepper = stepper
        self._arrived: deque[tuple[bytes, list[bytes]]] = deque()

    def open(self, _endpoint: str, _gatekeeper: Gatekeeper | None) -> SimulatedSocket:
        self._network.socket = self
        return self

    def arrive(self, peer: bytes, parts: list[bytes]) -> None:
        self._arrived.append((peer, parts))
        self._stepper.wake(self._network.world.now)

    def register(self, poller: zmq.Poller) -> None: ...

    def take_kept(self) -> tuple[bytes, list[bytes]]:
        raise AssertionError("nothing is kept")

    def receive(self) -> tuple[bytes, list[bytes]]:
        if not self._arrived:
            raise zmq.Again
        self._on_operation()
        return self._arrived.popleft()

    def send(self, peer: bytes, frame: bytes) -> None:
        self._on_operation()
        connection = self._network.connections.get(peer)
        if connection is None:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        if connection.is_full and connection.is_welcome:
            raise zmq.Again
        connection.is_welcome = True
        connection.send_to_client(frame)

    def find_key(self, peer: bytes) -> str:
        return ""

    @contextmanager
    def lent(self) -> Generator[None]:
        """Drop some of what arrived if the disk stalls in the block and the world is rough."""
        world = self._network.world
        began = world.now
        yield
        if world.now - began > 0.25 and not world.is_calm and world.chance(0.3):
            # The probe of a new connection has no bytes, and is never dropped.
            kept = [m for m in self._arrived if m[1] == [b""] or world.chance(0.7)]
            self.n_dropped += len(self._arrived) - len(kept)
            self._arrived = deque(kept)
            world.count_fault("frames dropped")

    def reopen(self) -> None:
        self._arrived.clear()
        self._network.break_all()

    def close(self) -> None:
        if self._network.socket is self:
            self._network.socket = None
        self._network.break_all()


class SimulatedLink(PartDriver):
    """A client's end of a connection, which connects again whenever the connection breaks."""

    def __init__(self, network: Network) -> None:
        super().__init__(ENDPOINT)
        self.cut_off_until = 0.0
        self.connection: Connection | None = None
        self._network = network
        self._world = network.world
        self._arrived: deque[bytes] = deque()
        self._is_closed = False
        self.stepper = Stepper(network.world, self.step)
        self._connect()

    def wake(self) -> None:
        self.stepper.wake(self._world.now)

    def arrive(self, frame: bytes) -> None:
        self._arrived.append(frame)
        self.stepper.wake(self._world.now)

    def on_disconnect(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            if not self._is_closed:
                self._world.call_in(self._world.seconds(*_RECONNECT_S), self._connect)

    def cut_off(self, seconds: float) -> None:
        """Let nothing through for a time; a connection survives a short one."""
        world = self._world
        self.cut_off_until = world.now + seconds
        if self.connection is None:
            return
        self.connection.delay(seconds)
        if seconds > _NOTICE_S:
            world.call_in(_NOTICE_S, self.connection.close)

    def kill(self) -> None:
        """End the process: the connection breaks, and the parts are never called again."""
        self._is_closed = True
        self._arrived.clear()
        if self.connection is not None:
            self.connection.is_draining = self._world.chance(0.5)
            self.connection.close()

    def step(self) -> None:
        if self._is_closed:
            return
        while self._arrived:
            self.handle(frames.decode_to_client(self._arrived.popleft()))
        due = self.work(self._send, self._world.now)
        if due is not None:
            self.stepper.wake(due)

    def _connect(self) -> None:
        if self._is_closed or self.connection is not None:
            return
        self.connection = self._network.connect(self)
        if self.connection is None:
            self._world.call_in(self._world.seconds(*_RECONNECT_S), self._connect)

    def _send(self, frame: frames.ToHub) -> bool:
        if self.connection is None:
            return False
        self.connection.send_to_hub([frames.encode(frame)])
        return True
