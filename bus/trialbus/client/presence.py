"""A session: tells the hub that this process is alive, so that a loss is noticed."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping

import msgspec

from trialbus.client.link import Link
from trialbus.client.part_driver import PartDriver, Send
from trialbus.errors import HubRefusedError
from trialbus.protocol import frames, limits
from trialbus.protocol.status import InfoValue

logger = logging.getLogger(__name__)

_RETRY_S = 0.5


class Presence:
    """A session that the link's thread keeps alive by heartbeats.

    When the hub receives no heartbeat for the session's time-to-live, it publishes `trainer_lost`.
    A lost session never comes back, and `lost` is true.

    Args:
        endpoint: Address of the hub; None means `$TRIALBUS_ENDPOINT` or the default.
        link: A link to share, in place of an endpoint.
        kind: `trainer`, `worker`, `optimizer`, `reporter` or another name.
        name: Name of the session for people, and for `exclusive`.
        ttl_s: Time-to-live in seconds; three heartbeats are sent in that time.
        study: Study of the trial that a trainer works on.
        trial: Number of that trial.
        attempt: Attempt of that trial.
        info: Texts, numbers and booleans that the hub's status shows with the session.
        exclusive: Allow only one live session of this kind and name; `wait_registered` waits for
            another such session to end.
        session: Id of the session, which nobody may guess; None makes one at random.

    Example:
        >>> with Presence(kind="worker", name="node-3", ttl_s=10):  # doctest: +SKIP
        ...     work()
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        link: PartDriver | None = None,
        kind: str,
        name: str = "",
        ttl_s: float = 10.0,
        study: str = "",
        trial: int | None = None,
        attempt: int | None = None,
        info: Mapping[str, InfoValue] | None = None,
        exclusive: bool = False,
        session: str | None = None,
    ) -> None:
        if ttl_s * 1000 > limits.MAX_TTL_MS:
            raise ValueError(
                f"ttl_s={ttl_s:g} (expected at most {limits.MAX_TTL_MS // 1000}, a day)"
            )
        self.session = uuid.uuid4().hex if session is None else session
        self._ttl_s = ttl_s
        self._hello = frames.Hello(
            session=self.session,
            kind=kind,
            name=name,
            ttl_ms=int(ttl_s * 1000),
            study=study,
            trial=trial,
            attempt=attempt,
            info=dict(info or {}),
            exclusive=exclusive,
        )
        self._announced: frames.Hello | None = None  # what was sent last
        self._own_link: Link | None = None
        if link is None:
            link = self._own_link = Link(endpoint)
        self._link = link
        self._lost = threading.Event()
        self._registered = threading.Event()
        self._conflict: HubRefusedError | None = None
        self._due = 0.0
        self._is_ending = False
        self._is_known = False  # the hub knows this session
        self._link.attach(self)

    def __enter__(self) -> Presence:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def lost(self) -> bool:
        """Whether the hub has declared this session lost, which is final."""
        return self._lost.is_set()

    @property
    def is_registered(self) -> bool:
        """Whether the hub knows this session, and will notice the loss of the process."""
        return self._is_known

    def wait_registered(self, timeout_s: float) -> None:
        """Wait until the hub knows this session.

        Raises:
            HubRefusedError: Another live session has the same exclusive kind and name.
            HubUnavailableError: No hub answered in time.
        """
        if not self._registered.wait(timeout_s):
            raise self._conflict or self._link.make_unavailable_error(timeout_s)

    def inform(self, info: Mapping[str, InfoValue]) -> None:
        """Replace the information that the hub's status shows, with the next heartbeat."""
        self._hello = msgspec.structs.replace(self._hello, info=dict(info))
        self._registered.clear()

    def assign(self, study: str, trial: int, attempt: int) -> None:
        """Tell the hub which trial this session works on now."""
        self._hello = msgspec.structs.replace(
            self._hello, study=study, trial=trial, attempt=attempt
        )
        self._registered.clear()
        self._due = 0.0
        self._link.wake()

    def close(self) -> None:
        """End the session; the hub publishes no `trainer_lost`."""
        self._is_ending = True
        self._link.wake()
        if self._own_link is not None:
            self._own_link.close()

    # --- the link's thread ---

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Send a heartbeat at once: the time-to-live may be almost over."""
        self._due = 0.0

    def on_frame(self, frame: frames.ToClient) -> None:
        """Handle the hub's answer to a heartbeat."""
        if isinstance(frame, frames.Seen) and frame.session == self.session:
            self._is_known = True
            # Not by the answer to an earlier heartbeat, after `inform` or `assign`.
            if self._announced is self._hello:
                self._registered.set()
        elif isinstance(frame, frames.Refused) and frame.about == self.session:
            if frame.code == frames.SESSION_LOST:
                self._lost.set()
            self._conflict = HubRefusedError(frame.code, frame.reason)

    def work(self, send: Send, now: float) -> float | None:
        """Send a heartbeat if a heartbeat is due."""
        if self._is_ending and self._is_known:
            self._is_known = False
            send(frames.Bye(self.session))
        if self._is_ending or self.lost:
            return None
        if now >= self._due:
            registered = self._registered.is_set()
            hello = self._hello
            sent = send(frames.Ping(self.session) if registered else hello)
            if not registered:
                self._announced = hello
            self._due = now + (
                self._ttl_s / 3 if sent and registered else min(_RETRY_S, self._ttl_s / 3)
            )
        return self._due

    def on_close(self) -> None:
        """Send no frame: `close` has ended the session, or the hub is to report the loss."""
