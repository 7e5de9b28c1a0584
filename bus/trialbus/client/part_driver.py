"""PartDriver: the parts of a connection to the hub, and their notices of its state.

Parts (a publisher's sender, a subscriber's fetcher, a presence session) never wait for the network:
the driver tells every part when a hub has welcomed the connection and which frames arrived, and
calls `work` so that each can send.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from trialbus.errors import HubUnavailableError
from trialbus.protocol import frames

logger = logging.getLogger(__name__)

#: Sends a frame; returns False when no connection accepts the frame.
Send: TypeAlias = Callable[[Any], bool]


class Part(Protocol):
    """An activity that a link drives. Every method runs in the link's thread."""

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Handle a new connection: unanswered frames of the previous connection are void."""

    def on_frame(self, frame: frames.ToClient) -> None:
        """Handle a frame from the hub; most frames concern another part."""

    def work(self, send: Send, now: float) -> float | None:
        """Send the frames that are due and return the time of the next call, on the clock of `now`.

        None means that only a frame or a wake-up gives the part something to do.
        """

    def on_close(self) -> None:
        """Handle the end of the link: the link sends no frame after this call."""


class PartDriver:
    """Drives parts, without a thread, a socket or a clock; `Link` adds the three.

    Args:
        endpoint: Address of the hub.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._parts: list[Part] = []
        self._joining: list[Part] = []
        self._requests = 0
        self._lock = threading.RLock()  # a garbage collection in between may detach a part
        self._welcome: frames.Welcome | None = None

    def attach(self, part: Part) -> None:
        """Start driving a part."""
        with self._lock:
            self._joining.append(part)
        self.wake()

    def detach(self, part: Part) -> None:
        """Stop driving a part."""
        with self._lock:
            self._joining = [other for other in self._joining if other is not part]
            self._parts = [other for other in self._parts if other is not part]

    def next_request(self) -> int:
        """Return a request number that no part of this driver has used."""
        with self._lock:
            self._requests += 1
            return self._requests

    def make_unavailable_error(self, waited_s: float) -> HubUnavailableError:
        """Return the error of a client that has waited for the hub in vain."""
        return HubUnavailableError(self.endpoint, waited_s)

    def wake(self) -> None:
        """Ask for a call of `work`."""

    def handle(self, frame: frames.ToClient) -> None:
        """Pass a frame of the hub on to the parts."""
        if isinstance(frame, frames.Welcome):
            if frame.protocol != frames.PROTOCOL:
                logger.warning(
                    "the hub speaks protocol %d, this client %d",
                    frame.protocol,
                    frames.PROTOCOL,
                )
            self._welcome = frame
            for part in self._parts:
                part.on_welcome(frame)
        else:
            for part in self._parts:
                part.on_frame(frame)

    def work(self, send: Send, now: float) -> float | None:
        """Let every part send the frames that are due, and return the time of the next call."""
        if self._welcome is None:
            return None
        if self._joining:
            with self._lock:
                joining, self._joining = self._joining, []
                self._parts = [*self._parts, *joining]
            for part in joining:
                part.on_welcome(self._welcome)
        return min(
            (due for part in self._parts if (due := part.work(send, now)) is not None), default=None
        )
