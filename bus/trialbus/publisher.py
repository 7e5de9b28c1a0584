"""Publisher: hands events to the bus in microseconds, whether or not a hub is there."""

from __future__ import annotations

import atexit
import logging
import os
import time
import uuid
import weakref
from typing import Literal, TypeAlias

from trialbus import events, wire
from trialbus.errors import ClosedError, OutboxFullError
from trialbus.link import Link, Send
from trialbus.outbox import Outbox

logger = logging.getLogger(__name__)

WhenFull: TypeAlias = Literal["block", "raise", "drop_oldest"]

_WINDOW = 4096  # events under way
_RESEND_S = 1.0
_RESEND_MAX_S = 8.0
_RETRY_S = 0.1


class Publisher:
    """Publishes events in order, each exactly once in the hub's log.

    `publish` puts the event into an outbox and returns; a thread of the publisher's link sends
    it, sends it again after a lost connection, and drops it once the hub has it on disk. Safe
    to use from any thread. In a forked child it goes on under an identity of its own.

    Args:
        endpoint: Where the hub is; None takes `$TRIALBUS_ENDPOINT` or the default.
        link: A link to share, instead of an endpoint; it stays open when the publisher closes.
        capacity: Events held while the hub is away.
        when_full: What `publish` does when the outbox is full: `block` waits up to `block_s`
            seconds and then raises, `raise` raises at once, `drop_oldest` gives up the oldest event
            that is not under way and counts it in `dropped` (for telemetry only).
        block_s: Seconds that `block` waits.

    Delivery:
        An event whose `publish` returned is delivered once the hub is reachable, as long as this
        process lives.

    Example:
        >>> with Publisher() as publisher:  # doctest: +SKIP
        ...     publisher.publish(trialbus.Stop(study="digits"))
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        link: Link | None = None,
        capacity: int = 100_000,
        when_full: WhenFull = "block",
        block_s: float = 30.0,
    ) -> None:
        self._when_full: WhenFull = when_full
        self._block_s = block_s
        self._capacity = capacity
        self._endpoint = endpoint if link is None else link.endpoint
        self._own_link = link is None
        self.dropped = 0  #: events given up by `drop_oldest`
        self._closed = False
        self._begin(Link(endpoint) if link is None else link)
        _open.add(self)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """Events accepted and not yet acknowledged."""
        return len(self._outbox)

    def publish(self, event: events.Event) -> int:
        """Accept an event and return its sequence number, from 1.

        Raises:
            OutboxFullError: No room, by the rule of `when_full`; nothing was accepted.
            ClosedError: `close` was called.
        """
        if self._closed:
            raise ClosedError("publish() on a closed publisher")
        if self._pid != os.getpid():
            self._own_link = True
            self._begin(Link(self._endpoint))
        topic, body = event.topic, events.encode(event)
        seq = self._outbox.put(topic, body) or self._put_into_full(topic, body)
        self._link.wake()
        return seq

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until the hub has everything accepted so far; False if it does not in time."""
        outbox = self._outbox
        goal = outbox.last
        with outbox.changed:
            return outbox.changed.wait_for(lambda: outbox.base > goal, timeout_s)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Flush for up to `timeout_s` seconds and close; False if something was not delivered."""
        if self._closed:
            return True
        self._closed = True
        _open.discard(self)
        if self._pid != os.getpid():
            return True
        delivered = self.flush(timeout_s)
        if not delivered:
            logger.warning(
                "closed with %d events that no hub at %s took in %g s",
                self.pending,
                self._link.endpoint,
                timeout_s,
            )
        self._link.detach(self._sender)
        if self._own_link:
            self._link.close()
        return delivered

    def _begin(self, link: Link) -> None:
        self._pid = os.getpid()
        self._link = link
        self._outbox = Outbox(self._capacity)
        self._sender = _Sender(self._outbox)
        link.attach(self._sender)

    def _put_into_full(self, topic: str, body: bytes) -> int:
        outbox = self._outbox
        deadline = time.monotonic() + (self._block_s if self._when_full == "block" else 0.0)
        while (seq := outbox.put(topic, body)) is None:
            if self._when_full == "drop_oldest" and outbox.drop_oldest():
                self.dropped += 1
                continue
            with outbox.changed:
                left = deadline - time.monotonic()
                if left <= 0 or not outbox.changed.wait_for(
                    lambda: len(outbox) < outbox.capacity, left
                ):
                    raise OutboxFullError(
                        outbox.capacity, self._block_s if self._when_full == "block" else 0.0
                    )
        return seq


class _Sender:
    """The part of a link that empties an outbox: go-back-N with a window."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._id = uuid.uuid4().bytes
        self._resend_s = _RESEND_S
        self._progress_at = 0.0
        self._waiting = False  # for an acknowledgement

    def on_welcome(self, welcome: wire.Welcome) -> None:
        self._outbox.go_back()
        self._waiting = False

    def on_frame(self, frame: wire.ToClient) -> None:
        if not isinstance(frame, wire.Ack) or frame.publisher != self._id:
            return
        if self._outbox.acknowledge(frame.last):
            self._progress_at = time.monotonic()
            self._resend_s = _RESEND_S

    def work(self, send: Send, now: float) -> float | None:
        if self._waiting and now - self._progress_at > self._resend_s:
            self._outbox.go_back()
            self._resend_s = min(2 * self._resend_s, _RESEND_MAX_S)
            self._waiting = False
        while True:
            first, batch = self._outbox.batch(_WINDOW)
            if not batch:
                break
            if not send(wire.Publish(self._id, first, batch, self._outbox.base)):
                self._outbox.go_back()
                self._waiting = False
                return now + _RETRY_S
            self._outbox.mark_sent(len(batch))
            if not self._waiting:
                self._waiting, self._progress_at = True, now
        self._waiting = self._waiting and bool(len(self._outbox))
        return self._progress_at + self._resend_s if self._waiting else None

    def on_close(self) -> None:
        return


_open: weakref.WeakSet[Publisher] = weakref.WeakSet()


@atexit.register
def _flush_at_exit() -> None:
    for publisher in list(_open):
        publisher.close()
