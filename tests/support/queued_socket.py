"""A hub's socket in memory: messages wait in a queue, and frames that are sent are kept."""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext

import zmq


class QueuedSocket:
    """Implements `trialbus.hub.router.PeerSocket`."""

    has_kept = False
    n_dropped = 0

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, list[bytes]]] = deque()  # peer and parts
        self.sent: list[tuple[bytes, bytes]] = []  # peer and frame
        self.room: int | None = None  # frames that the peers still take; None for any number

    def register(self, poller: zmq.Poller) -> None: ...
    def take_kept(self) -> tuple[bytes, list[bytes]]:
        raise AssertionError("nothing is kept")

    def receive(self) -> tuple[bytes, list[bytes]]:
        if not self.queue:
            raise zmq.Again
        return self.queue.popleft()

    def send(self, peer: bytes, frame: bytes) -> None:
        if self.room is not None:
            if not self.room:
                raise zmq.Again
            self.room -= 1
        self.sent.append((peer, frame))

    def find_key(self, peer: bytes) -> str:
        return ""

    def lent(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reopen(self) -> None: ...
    def close(self) -> None: ...
