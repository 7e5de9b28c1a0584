"""Link: one client's connection to the hub, with the only thread that touches its socket.

Parts (a publisher's outbox, a subscription, a presence session) are attached to a link and driven
by its thread. They never wait for the network; the link tells them when a hub has welcomed it
and what it sent, and lets them send while it takes frames.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import msgspec
import zmq

from trialbus.errors import HubUnavailableError
from trialbus.protocol import frames
from trialbus.protocol.endpoint import resolve
from trialbus.protocol.security import ClientKeys, client_keys

logger = logging.getLogger(__name__)

#: Sends a frame; False when there is no connection that takes it.
Send: TypeAlias = Callable[[Any], bool]

_IDLE_S = 60.0
_REST_S = 25e-3  # what is offered, and what comes from the hub after it, waits for so long at most


class Part(Protocol):
    """What a link drives. Every method runs in the link's thread."""

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """A connection was made, or made again: what was under way on the old one is void."""

    def on_frame(self, frame: frames.ToClient) -> None:
        """A frame came; most concern another part."""

    def work(self, send: Send, now: float) -> float | None:
        """Send what is to be sent and return when to be called again, if nothing happens before."""

    def on_close(self) -> None:
        """The link closes; nothing will be sent any more."""


class Link:
    """A connection to the hub at `endpoint` that is made again whenever it is lost.

    Returns at once; nothing fails while no hub is there. A forked child must open a link of its
    own: the parent's is dead in it.

    Args:
        endpoint: `ipc://<path>` or `tcp://<host>:<port>`; None takes `$TRIALBUS_ENDPOINT` or the
            default.
        keys: For a hub that asks for them; None takes those the environment names.

    Example:
        >>> with Link("ipc://.trialbus/hub.sock") as link:  # doctest: +SKIP
        ...     link.wait_connected(5)
    """

    def __init__(self, endpoint: str | None = None, *, keys: ClientKeys | None = None) -> None:
        self.endpoint = resolve(endpoint)
        self._keys = client_keys() if keys is None else keys
        self.pid = os.getpid()
        self._parts: list[Part] = []
        self._joining: list[Part] = []
        self._requests = 0
        self._lock = threading.Lock()
        self._welcome: frames.Welcome | None = None
        self._connected = threading.Event()
        self._closing = False
        self._awake = False  # the thread will look at its parts before it waits
        self._asked = False  # somebody wants it to, since it began to
        self._offered = False  # or has something to send that may wait
        self._resting = False  # it looked for that alone lately, and will again at `_rested_at`
        self._rested_at = 0.0
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="trialbus-link", daemon=True)
        self._thread.start()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether the hub has answered on the present connection."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> None:
        """Wait until the hub answers.

        Raises:
            HubUnavailableError: It did not within `timeout_s` seconds.
        """
        if not self._connected.wait(timeout_s):
            raise HubUnavailableError(self.endpoint, timeout_s)

    def attach(self, part: Part) -> None:
        """Drive a part from now on."""
        with self._lock:
            self._joining.append(part)
        self.wake()

    def detach(self, part: Part) -> None:
        """Stop driving a part."""
        with self._lock:
            self._joining = [other for other in self._joining if other is not part]
            self._parts = [other for other in self._parts if other is not part]

    def next_request(self) -> int:
        """Return a request number that no part of this link has used."""
        with self._lock:
            self._requests += 1
            return self._requests

    def wake(self) -> None:
        """Make the thread look at its parts soon. Cheap; may be called from any thread."""
        self._asked = True
        self._call()

    def offer(self) -> None:
        """Do as `wake` does, but let it wait if the thread was called by this lately.

        Each time it looks costs the caller more than the event does: it takes the interpreter, and
        the caches from the training.
        """
        self._offered = True
        if not self._resting:
            self._call()

    def _call(self) -> None:
        if not self._awake and not self._closing:
            self._awake = True
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        """End the thread and the connection. What parts still hold is not sent."""
        if self._closing or self.pid != os.getpid():
            return
        self._closing = True
        os.write(self._wake_write, b"\0")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        context = zmq.Context()
        dealer = self._connect(context)
        calls, everything = zmq.Poller(), zmq.Poller()
        calls.register(self._wake_read, zmq.POLLIN)
        everything.register(self._wake_read, zmq.POLLIN)
        everything.register(dealer, zmq.POLLIN)

        def send(frame: frames.ToHub) -> bool:
            try:
                dealer.send(frames.encode(frame), zmq.NOBLOCK)
            except zmq.Again:
                self._connected.clear()
                return False
            return True

        due: float | None = None
        while not self._closing:
            self._pause(due, calls, everything)
            asked, self._asked = self._asked, False
            offered, self._offered = self._offered, False
            self._receive(dealer)
            due = self._work(send)
            if asked:
                self._rested_at = 0.0  # whoever asked may wait for an answer
            elif offered:
                self._rested_at = time.monotonic() + _REST_S
        self._work(send)
        for part in (*self._parts, *self._joining):
            part.on_close()
        dealer.close(linger=200)
        context.term()

    def _pause(self, due: float | None, calls: zmq.Poller, everything: zmq.Poller) -> None:
        """Wait until there is something to do; while it rests, for calls only."""
        now = time.monotonic()
        self._resting = now < self._rested_at
        self._awake = False
        # Either may have been set by one that found this thread awake, or resting, still.
        if not self._asked and (self._resting or not self._offered):
            until = now + _IDLE_S if due is None else due
            if self._resting:
                until = min(until, self._rested_at)
            wait_ms = max(0, math.ceil((until - now) * 1000))
            for source, _ in (calls if self._resting else everything).poll(wait_ms):
                if source == self._wake_read:
                    os.read(self._wake_read, 64)
        self._awake = True

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        dealer = context.socket(zmq.DEALER)
        # Together these make libzmq probe on every reconnect, and the hub answer with Welcome.
        dealer.set(zmq.IMMEDIATE, 1)
        dealer.set(zmq.PROBE_ROUTER, 1)
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.SNDHWM, 1000)
        dealer.set(zmq.RCVHWM, 1000)
        dealer.set(zmq.MAXMSGSIZE, 64 << 20)
        dealer.set(zmq.RECONNECT_IVL, 50)
        dealer.set(zmq.RECONNECT_IVL_MAX, 2000)
        dealer.set(zmq.CONNECT_TIMEOUT, 3000)
        # The kernel notices a host that is gone. libzmq's own heartbeats can end this process by
        # an assertion, see `trialbus.hub.router`.
        dealer.set(zmq.TCP_KEEPALIVE, 1)
        dealer.set(zmq.TCP_KEEPALIVE_IDLE, 5)
        dealer.set(zmq.TCP_KEEPALIVE_INTVL, 5)
        dealer.set(zmq.TCP_KEEPALIVE_CNT, 2)
        dealer.set(zmq.TCP_MAXRT, 15000)
        dealer.set(zmq.IPV6, 1)
        if self._keys is not None:
            dealer.set(zmq.CURVE_SERVERKEY, self._keys.hub.encode())
            dealer.set(zmq.CURVE_PUBLICKEY, self._keys.own.public.encode())
            dealer.set(zmq.CURVE_SECRETKEY, self._keys.own.secret.encode())
        dealer.connect(self.endpoint)
        return dealer

    def _receive(self, dealer: zmq.Socket[bytes]) -> None:
        while True:
            try:
                data = dealer.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                frame = frames.decode_to_client(data)
            except msgspec.DecodeError as error:
                logger.warning(
                    "the hub at %s sent a frame that cannot be read: %s", self.endpoint, error
                )
                continue
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
            self._connected.set()

    def _work(self, send: Send) -> float | None:
        if self._welcome is None:
            return None
        if self._joining:
            with self._lock:
                joining, self._joining = self._joining, []
                self._parts = [*self._parts, *joining]
            for part in joining:
                part.on_welcome(self._welcome)
        now = time.monotonic()
        return min(
            (due for part in self._parts if (due := part.work(send, now)) is not None), default=None
        )
