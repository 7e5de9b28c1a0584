"""Presence: tells the hub that this process is alive, so that others learn when it is not."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping

import msgspec

from trialbus.client.link import Link, Send
from trialbus.errors import HubRefusedError, HubUnavailableError
from trialbus.protocol import frames

logger = logging.getLogger(__name__)

_RETRY_S = 0.5


class Presence:
    """A session that the link's thread keeps alive.

    When nothing is heard of it for its time-to-live, the hub publishes `trainer_lost` about it;
    after that the session is gone for good and `lost` is true.

    Args:
        endpoint: Where the hub is; None takes `$TRIALBUS_ENDPOINT` or the default.
        link: A link to share, instead of an endpoint.
        kind: `trainer`, `worker`, `optimizer`, `reporter` or a name of your own.
        name: For people, and for `exclusive`.
        ttl_s: Time-to-live in seconds; a sign of life is sent three times within it.
        study: Study, trial and attempt that a trainer works on.
        trial: See `study`.
        attempt: See `study`.
        info: Anything others should see in the hub's status.
        exclusive: Let only one live session of this kind and name exist; `wait_registered` waits
            for another one to end.

    Example:
        >>> with Presence(kind="worker", name="node-3", ttl_s=10):  # doctest: +SKIP
        ...     work()
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        link: Link | None = None,
        kind: str,
        name: str = "",
        ttl_s: float = 10.0,
        study: str = "",
        trial: int | None = None,
        attempt: int | None = None,
        info: Mapping[str, str] | None = None,
        exclusive: bool = False,
    ) -> None:
        self.session = uuid.uuid4().hex
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
        self._own_link = link is None
        self._link = Link(endpoint) if link is None else link
        self._lost = threading.Event()
        self._registered = threading.Event()
        self._conflict: HubRefusedError | None = None
        self._due = 0.0
        self._ending = False
        self._known = False  # to the hub
        self._link.attach(self)

    def __enter__(self) -> Presence:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def lost(self) -> bool:
        """Whether the hub declared this session lost. It does not come back."""
        return self._lost.is_set()

    def wait_registered(self, timeout_s: float) -> None:
        """Wait until the hub knows this session.

        Raises:
            HubRefusedError: Another live session has the same exclusive kind and name.
            HubUnavailableError: No hub answered in time.
        """
        if not self._registered.wait(timeout_s):
            raise self._conflict or HubUnavailableError(self._link.endpoint, timeout_s)

    def inform(self, info: Mapping[str, str]) -> None:
        """Show others something new in the hub's status, with the next sign of life."""
        self._hello = msgspec.structs.replace(self._hello, info=dict(info))
        self._registered.clear()

    def assign(self, study: str, trial: int, attempt: int) -> None:
        """Tell the hub which trial this session works on from now on."""
        self._hello = msgspec.structs.replace(
            self._hello, study=study, trial=trial, attempt=attempt
        )
        self._registered.clear()
        self._due = 0.0
        self._link.wake()

    def close(self) -> None:
        """End the session; nobody is told that it was lost."""
        self._ending = True
        self._link.wake()
        if self._own_link:
            self._link.close()

    # --- the link's thread ---

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Show up at once: the hub may have been without us for long."""
        self._due = 0.0

    def on_frame(self, frame: frames.ToClient) -> None:
        """Take the hub's answer to a sign of life."""
        if isinstance(frame, frames.Seen) and frame.session == self.session:
            self._known = True
            self._registered.set()
        elif isinstance(frame, frames.Refused) and frame.about == self.session:
            if frame.code == frames.SESSION_LOST:
                self._lost.set()
            self._conflict = HubRefusedError(frame.code, frame.reason)

    def work(self, send: Send, now: float) -> float | None:
        """Send a sign of life when it is due."""
        if self._ending and self._known:
            self._known = False
            send(frames.Bye(self.session))
        if self._ending or self.lost:
            return None
        if now >= self._due:
            registered = self._registered.is_set()
            sent = send(frames.Ping(self.session) if registered else self._hello)
            self._due = now + (
                self._ttl_s / 3 if sent and registered else min(_RETRY_S, self._ttl_s / 3)
            )
        return self._due

    def on_close(self) -> None:
        """Nothing is left to be done."""
