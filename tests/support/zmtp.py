"""A peer that speaks ZMTP 3.1 over a plain socket, which can break rules that libzmq keeps."""

from __future__ import annotations

import contextlib
import socket
import struct

#: First bytes of a peer without keys.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
_COMMAND, _LONG = 4, 2

#: A heartbeat without a time-to-live, as a frame.
PING = bytes([_COMMAND, 7]) + b"\x04PING\x00\x00"


def make_frame(body: bytes) -> bytes:
    """Return the bytes on the wire of a message with a single part."""
    if len(body) < 256:
        return bytes([0, len(body)]) + body
    return bytes([_LONG]) + struct.pack(">Q", len(body)) + body


def make_ready(socket_type: bytes) -> bytes:
    """Return the bytes on the wire by which a socket of a type ends the handshake."""
    properties = b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        for name, value in ((b"Socket-Type", socket_type), (b"Identity", b""))
    )
    ready = b"\x05READY" + properties
    return bytes([_COMMAND, len(ready)]) + ready


class ZmtpPeer:
    """A connection to a hub's socket file, as a DEALER after the handshake.

    Raises:
        OSError: Nobody listens at the socket file, or the handshake was cut off.
    """

    def __init__(self, endpoint: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        try:
            self._socket.connect(endpoint.removeprefix("ipc://"))
            self._socket.sendall(GREETING)
            self._read(len(GREETING))
            self._socket.sendall(make_ready(b"DEALER"))
        except OSError:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        """Send raw bytes, and wait until the kernel has accepted all of the data."""
        self._socket.sendall(data)

    def send_some(self, data: bytes) -> None:
        """Send as many bytes as the kernel takes at once."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._socket.send(data)
        self._socket.settimeout(10)

    def __enter__(self) -> ZmtpPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        self._socket.close()

    def _read(self, size: int) -> None:
        while size:
            data = self._socket.recv(size)
            if not data:
                raise ConnectionResetError("the hub closed the connection")
            size -= len(data)
