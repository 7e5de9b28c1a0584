"""A publisher: accepts events in microseconds, whether or not a hub is running."""

from __future__ import annotations

import atexit
import logging
import os
import time
import uuid
import weakref
from typing import Literal, TypeAlias

from trialbus.client.link import Link
from trialbus.client.outbox import Outbox
from trialbus.client.ring_directory import DEFAULT_BYTES, create_ring
from trialbus.client.ring_keeper import RingKeeper
from trialbus.client.sender import Adopter, Sender
from trialbus.errors import ClosedError, OutboxFullError
from trialbus.messages import codec, events
from trialbus.protocol import limits

logger = logging.getLogger(__name__)

WhenFull: TypeAlias = Literal["block", "raise", "drop_oldest"]


class Publisher:
    """Publishes events in order, each exactly once in the hub's log.

    `publish` puts the event into an outbox and returns. The link's thread sends the event,
    sends the event again after a lost connection, and removes it once the hub has it on disk. Safe
    to use from any thread. In a forked child, the publisher continues under a new publisher id.

    Args:
        endpoint: Address of the hub; None means `$TRIALBUS_ENDPOINT` or the default.
        link: A link to share, in place of an endpoint; `close` leaves a shared link open.
        capacity: Largest number of events that the outbox holds while the hub is away.
        ring_bytes: Size of the outbox's shared memory, another bound; 0 for no shared memory.
        when_full: What `publish` does when the outbox is full: `block` waits up to `block_s`
            seconds and then raises, `raise` raises at once, `drop_oldest` drops the oldest event
            unless events are being sent, and counts it in `dropped` (for telemetry only).
        block_s: Seconds for which `block` waits.

    Delivery:
        An event whose `publish` returned is delivered once the hub is reachable, even when this
        process is killed: the event is in shared memory, and another publisher on the host finds
        and sends it. Where shared memory is not available, `survives` is false, and unsent events
        are lost with the process.

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
        ring_bytes: int = DEFAULT_BYTES,
        when_full: WhenFull = "block",
        block_s: float = 30.0,
    ) -> None:
        self._when_full: WhenFull = when_full
        self._block_s = block_s
        self._capacity = capacity
        self._ring_bytes = ring_bytes
        self._endpoint = endpoint if link is None else link.endpoint
        self._owns_link = link is None
        self.dropped = 0  #: number of events dropped by `drop_oldest`
        self._is_closed = False
        self._start(Link(endpoint) if link is None else link)
        _open.add(self)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """Number of events accepted and not yet acknowledged."""
        return len(self._outbox)

    @property
    def survives(self) -> bool:
        """Whether unsent events outlive this process, in shared memory."""
        return self._outbox.survives

    @property
    def refused(self) -> int:
        """Number of refusals by the hub, for example because the hub's disk is full."""
        return self._sender.refused

    def publish(self, event: events.Event, *, at_once: bool = True) -> int:
        """Accept an event and return the sequence number of the event, from 1.

        Args:
            event: The event to publish.
            at_once: Send the event now. False: the event and the hub's answer may each wait for
                25 ms where events follow each other quickly, which disturbs a training less often.

        Raises:
            OutboxFullError: The outbox is full, by the rule of `when_full`; nothing was accepted.
            ValueError: The event or its topic is larger than the hub takes, or its type has a `/`.
            HubRefusedError: The hub refused an earlier event: this client's key does not allow it.
            ClosedError: `close` was called.
        """
        if self._is_closed:
            raise ClosedError("publish() on a closed publisher")
        if self._is_forked:
            self._owns_link = True
            self._start(Link(self._endpoint))
        if self._sender.forbidden is not None:
            raise self._sender.forbidden
        topic, body = event.topic, codec.encode(event)
        if len(body) > limits.MAX_EVENT or len(topic) > limits.MAX_TOPIC:
            raise ValueError(_describe_excess(event, topic, body))
        seq = self._outbox.put(topic, body) or self._put_into_full(topic, body)
        if at_once or seq % limits.BATCH_EVENTS == 0:
            self._link.wake()
        else:
            self._link.wake_later()
        return seq

    @property
    def last(self) -> int:
        """Sequence number of the newest event; 0 before the first."""
        return self._outbox.last

    def acknowledged(self, seq: int) -> bool:
        """Tell whether the hub has the event that `publish` gave this number, on disk."""
        return self._outbox.base > seq

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until the hub has every event accepted so far on disk; False on a timeout."""
        outbox = self._outbox
        last = outbox.last
        self._link.wake()
        with outbox.changed:
            return outbox.changed.wait_for(lambda: outbox.base > last, timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Flush for up to `timeout_s` seconds and close; False if an event was not delivered."""
        if self._is_closed:
            return True
        self._is_closed = True
        _open.discard(self)
        if self._is_forked:
            return True
        is_delivered = self._sender.forbidden is None and self.flush(timeout_s)
        if not is_delivered and self.survives:
            logger.info(
                "closed with %d unsent events, which other publishers on this host will send",
                self.pending,
            )
        elif not is_delivered:
            logger.warning(
                "closed with %d events that the hub at %s did not acknowledge within %g s",
                self.pending,
                self._link.endpoint,
                timeout_s,
            )
        self._link.detach(self._sender)
        self._link.detach(self._keeper)
        if self._owns_link:
            self._link.close()
        self._outbox.close()
        return is_delivered

    def mark_forked(self) -> None:
        """Mark that this process is a forked child; the next event starts a new outbox."""
        self._is_forked = True

    def _start(self, link: Link) -> None:
        self._is_forked = False
        self._link = link
        identity = uuid.uuid4().bytes
        ring = create_ring(link.endpoint, identity, self._ring_bytes) if self._ring_bytes else None
        self._outbox = Outbox(self._capacity, ring)
        self._sender = Sender(identity, self._outbox)
        self._keeper = RingKeeper(link.endpoint, identity, self._outbox)
        link.attach(self._sender)
        link.attach(self._keeper)
        link.attach(Adopter(link))

    def _put_into_full(self, topic: str, body: bytes) -> int:
        outbox = self._outbox
        deadline = time.monotonic() + (self._block_s if self._when_full == "block" else 0.0)
        while (seq := outbox.put(topic, body)) is None:
            if self._when_full == "drop_oldest" and outbox.drop_oldest():
                self.dropped += 1
                continue
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not outbox.wait_for_room(left_s):
                raise OutboxFullError(
                    outbox.capacity, self._block_s if self._when_full == "block" else 0.0
                )
        return seq


def _describe_excess(event: events.Event, topic: str, body: bytes) -> str:
    if len(body) > limits.MAX_EVENT:
        return f"a {event.type} of {len(body)} bytes, at most {limits.MAX_EVENT} fit"
    return (
        f"a {event.type} whose topic has {len(topic)} characters, at most {limits.MAX_TOPIC} fit; "
        f"shorten the name of the study ({event.study[:20]!r}...)"
    )


_open: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _mark_forked() -> None:
    for publisher in _open:
        publisher.mark_forked()


os.register_at_fork(after_in_child=_mark_forked)


@atexit.register
def _flush_at_exit() -> None:
    for publisher in list(_open):
        publisher.close()
