"""A client of the hub's frames that uses no code of `trialbus.client`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

from trialbus.protocol import frames
from trialbus.protocol.security import ClientKeys


class RawClient:
    """A DEALER that is connected to a hub.

    Args:
        endpoint: Address of the hub.
        context: A context to share; None makes one for this client alone.
        keys: Keys for a hub that accepts only clients with a key.
        routing_id: Routing id to ask for; empty lets the hub choose.
    """

    def __init__(
        self,
        endpoint: str,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: ClientKeys | None = None,
        routing_id: bytes = b"",
    ) -> None:
        self._owns_context = context is None
        self._context = zmq.Context() if context is None else context
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        if routing_id:
            self._socket.setsockopt(zmq.ROUTING_ID, routing_id)
        if keys is not None:
            self._socket.curve_serverkey = keys.hub.encode()
            self._socket.curve_publickey = keys.own.public.encode()
            self._socket.curve_secretkey = keys.own.secret.encode()
        self._socket.connect(endpoint)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and discard unsent messages."""
        self._socket.close()
        if self._owns_context:
            self._context.term()

    def send(self, frame: frames.ToHub) -> None:
        """Send a frame."""
        self._socket.send(frames.encode(frame))

    def send_bytes(self, *parts: bytes) -> None:
        """Send a message of raw parts."""
        self._socket.send_multipart(parts)

    def try_send_all(self, messages: Sequence[frames.ToHub]) -> None:
        """Send frames until the socket is full."""
        for frame in messages:
            try:
                self._socket.send(frames.encode(frame), zmq.NOBLOCK)
            except zmq.Again:
                return

    def receive(self, timeout_s: float = 20.0) -> frames.ToClient:
        """Return the next frame of the hub; fail after `timeout_s` seconds without a frame."""
        assert self._socket.poll(int(timeout_s * 1000)), "no frame from the hub"
        return frames.decode_to_client(self._socket.recv())

    def receive_available(self) -> Iterator[frames.ToClient]:
        """Yield the frames that have arrived, without waiting."""
        while self._socket.poll(0):
            yield frames.decode_to_client(self._socket.recv())
