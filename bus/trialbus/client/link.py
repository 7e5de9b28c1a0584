"""The link: a client's connection to the hub, with the only thread that uses the socket.

A `PartDriver` whose parts (sender, fetcher, presence session) are driven by the link's thread.

The thread waits in `_wait` between two turns. Any thread may request a turn:

| request | flag | when the turn comes |
|---|---|---|
| `wake` | `_wake_requested` | at once |
| `wake_later` | `_later_requested` | at once; while the thread rests, at `_rests_until` |

libzmq gives a connection up for good after bytes that are not of its protocol: of another program
at the hub's address, or of a hub that has no keys. A proxy may keep a connection whose other half
is dead. So a socket that had no connection, or no answer, for a while is replaced by a new one.

The thread rests for 25 ms after a turn that only `wake_later` requested. While it rests it does
not read from the hub either. A turn that `wake` requested ends the rest.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time

import msgspec
import zmq

from trialbus.client.part_driver import PartDriver
from trialbus.errors import HubUnavailableError
from trialbus.protocol import frames
from trialbus.protocol.endpoint import find_endpoint_source, notice_dead_hosts, resolve
from trialbus.protocol.security import ClientKeys, explain_silence, load_client_keys

logger = logging.getLogger(__name__)

_CHECK_S = 5.0  # between two looks at whether the socket has a connection
_RENEW_S = 15.0  # without a connection; a handshake that takes 10 s is ended by the hub
_ANSWER_S = 60.0  # for any frame after a frame was sent; a fetch is answered after 30 s
_REST_S = 25e-3  # longest delay of a turn by `wake_later`, and of the frames that arrive after it


class Link(PartDriver):
    """A connection to the hub at `endpoint` that reconnects whenever the connection is lost.

    The constructor returns at once, and nothing fails while no hub is running. A forked child must
    open a link itself: the parent's link does not work there.

    Args:
        endpoint: `ipc://<path>` or `tcp://<host>:<port>`; None means `$TRIALBUS_ENDPOINT` or the
            default.
        keys: CURVE keys for a hub that requires them; None means the keys that the environment
            names.

    Example:
        >>> with Link("ipc://.trialbus/hub.sock") as link:  # doctest: +SKIP
        ...     link.wait_connected(5)
    """

    def __init__(self, endpoint: str | None = None, *, keys: ClientKeys | None = None) -> None:
        super().__init__(resolve(endpoint))
        self._source = "" if endpoint else find_endpoint_source()
        self._keys = load_client_keys() if keys is None else keys
        self.pid = os.getpid()
        self._connected = threading.Event()
        self._closing = False
        self._is_awake = False  # the thread checks the requests below before it waits
        self._wake_requested = False
        self._later_requested = False
        self._is_resting = False
        self._rests_until = 0.0
        self._check_at = 0.0
        self._sendable_at = 0.0  # when the socket last had a connection
        self._unanswered_at: float | None = None  # since when no frame answers those that were sent
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="trialbus-link", daemon=True)
        self._thread.start()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a forked child, in which the link's thread does not run."""
        return self.pid != os.getpid()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in the link's thread, where a garbage collection may call."""
        return threading.current_thread() is self._thread

    @property
    def connected(self) -> bool:
        """Whether the hub has answered on the current connection."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> None:
        """Wait until the hub answers.

        Raises:
            HubUnavailableError: The hub did not answer within `timeout_s` seconds.
        """
        if not self._connected.wait(timeout_s):
            raise self.make_unavailable_error(timeout_s)

    def make_unavailable_error(self, waited_s: float) -> HubUnavailableError:
        """Return the error of a client that has waited for the hub in vain."""
        hint = explain_silence(self.endpoint, self._keys)
        return HubUnavailableError(self.endpoint, waited_s, source=self._source, hint=hint)

    def wake(self) -> None:
        """Make the link's thread call every part at once. Cheap; safe from any thread."""
        self._wake_requested = True
        self._signal_thread()

    def wake_later(self) -> None:
        """Make the link's thread call every part within 25 ms; at once unless the thread rests.

        A turn of the thread costs the caller more than the event does: the thread takes the
        interpreter, and the processor's caches, from the training.
        """
        self._later_requested = True
        if not self._is_resting:
            self._signal_thread()

    def _signal_thread(self) -> None:
        if not self._is_awake and not self._closing:
            self._is_awake = True
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        """End the thread and the connection. Events that parts still hold are not sent."""
        if self._closing or self.is_forked:
            return
        self._closing = True
        os.write(self._wake_write, b"\0")
        if not self.is_current_thread:
            self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        context = zmq.Context()
        wakeups = zmq.Poller()
        wakeups.register(self._wake_read, zmq.POLLIN)
        dealer, wakeups_and_frames = self._connect(context)

        def send(frame: frames.ToHub) -> bool:
            try:
                dealer.send(frames.encode(frame), zmq.NOBLOCK)
            except zmq.Again:
                self._connected.clear()
                return False
            if self._unanswered_at is None:
                self._unanswered_at = time.monotonic()
            return True

        due: float | None = None
        while not self._closing:
            self._wait(due, wakeups, wakeups_and_frames)
            if self._is_given_up(dealer):
                self._connected.clear()
                dealer.close(linger=0)
                dealer, wakeups_and_frames = self._connect(context)
            wake_requested, self._wake_requested = self._wake_requested, False
            later_requested, self._later_requested = self._later_requested, False
            self._receive(dealer)
            due = self.work(send, time.monotonic())
            if wake_requested:
                self._rests_until = 0.0  # the caller may be waiting for the hub's answer
            elif later_requested:
                self._rests_until = time.monotonic() + _REST_S
        self.work(send, time.monotonic())
        for part in (*self._parts, *self._joining):
            part.on_close()
        dealer.close(linger=200)
        context.term()

    def _wait(self, due: float | None, wakeups: zmq.Poller, wakeups_and_frames: zmq.Poller) -> None:
        """Wait until `due`, a wake-up or a frame; a resting thread ignores frames."""
        now = time.monotonic()
        self._is_resting = now < self._rests_until
        self._is_awake = False
        # A caller that still saw this thread awake, or resting, set a flag without a signal.
        if not self._wake_requested and (self._is_resting or not self._later_requested):
            wait_until = now + _CHECK_S if due is None else min(due, now + _CHECK_S)
            if self._is_resting:
                wait_until = min(wait_until, self._rests_until)
            wait_ms = max(0, math.ceil((wait_until - now) * 1000))
            for source, _ in (wakeups if self._is_resting else wakeups_and_frames).poll(wait_ms):
                if source == self._wake_read:
                    os.read(self._wake_read, 64)
        self._is_awake = True

    def _is_given_up(self, dealer: zmq.Socket[bytes]) -> bool:
        """Tell whether the socket had no connection or answer for so long that none may come."""
        now = time.monotonic()
        if now < self._check_at:
            return False
        self._check_at = now + _CHECK_S
        if int(dealer.get(zmq.EVENTS)) & zmq.POLLOUT:
            self._sendable_at = now
        unanswered_s = 0.0 if self._unanswered_at is None else now - self._unanswered_at
        return now - self._sendable_at >= _RENEW_S or unanswered_s >= _ANSWER_S

    def _connect(
        self, context: zmq.Context[zmq.Socket[bytes]]
    ) -> tuple[zmq.Socket[bytes], zmq.Poller]:
        """Return a socket that connects to the hub, and a poller for wake-ups and its frames."""
        dealer = context.socket(zmq.DEALER)
        # With these two, libzmq sends a probe on every reconnect, and the hub answers with Welcome.
        dealer.set(zmq.IMMEDIATE, 1)
        dealer.set(zmq.PROBE_ROUTER, 1)
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.SNDHWM, 1000)
        dealer.set(zmq.RCVHWM, 1000)
        dealer.set(zmq.MAXMSGSIZE, 64 << 20)
        dealer.set(zmq.RECONNECT_IVL, 50)
        # To a socket of this machine a try costs little, and who waits for its hub begins sooner.
        dealer.set(zmq.RECONNECT_IVL_MAX, 100 if self.endpoint.startswith("ipc:") else 2000)
        dealer.set(zmq.CONNECT_TIMEOUT, 3000)
        notice_dead_hosts(dealer)
        dealer.set(zmq.IPV6, 1)
        if self._keys is not None:
            dealer.set(zmq.CURVE_SERVERKEY, self._keys.hub.encode())
            dealer.set(zmq.CURVE_PUBLICKEY, self._keys.own.public.encode())
            dealer.set(zmq.CURVE_SECRETKEY, self._keys.own.secret.encode())
        dealer.connect(self.endpoint)
        self._sendable_at = time.monotonic()
        self._unanswered_at = None
        wakeups_and_frames = zmq.Poller()
        wakeups_and_frames.register(self._wake_read, zmq.POLLIN)
        wakeups_and_frames.register(dealer, zmq.POLLIN)
        return dealer, wakeups_and_frames

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
            self._unanswered_at = None
            self.handle(frame)
            self._connected.set()
