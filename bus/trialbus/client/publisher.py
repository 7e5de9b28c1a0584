"""Publisher: hands events to the bus in microseconds, whether or not a hub is there."""

from __future__ import annotations

import atexit
import logging
import os
import time
import uuid
import weakref
from typing import Literal, TypeAlias

from trialbus.client import shared_ring
from trialbus.client.link import Link
from trialbus.client.outbox import Outbox
from trialbus.client.sender import Adopter, Sender
from trialbus.errors import ClosedError, OutboxFullError
from trialbus.messages import codec, events
from trialbus.protocol import frames

logger = logging.getLogger(__name__)

WhenFull: TypeAlias = Literal["block", "raise", "drop_oldest"]


class Publisher:
    """Publishes events in order, each exactly once in the hub's log.

    `publish` puts the event into an outbox and returns; a thread of the publisher's link sends
    it, sends it again after a lost connection, and drops it once the hub has it on disk. Safe
    to use from any thread. In a forked child it goes on under an identity of its own.

    Args:
        endpoint: Where the hub is; None takes `$TRIALBUS_ENDPOINT` or the default.
        link: A link to share, instead of an endpoint; it stays open when the publisher closes.
        capacity: Events held while the hub is away.
        ring_bytes: Size of the shared memory that keeps them, another bound; 0 for none.
        when_full: What `publish` does when the outbox is full: `block` waits up to `block_s`
            seconds and then raises, `raise` raises at once, `drop_oldest` gives up the oldest event
            that is not under way and counts it in `dropped` (for telemetry only).
        block_s: Seconds that `block` waits.

    Delivery:
        An event whose `publish` returned is delivered once the hub is reachable, also when this
        process is killed: it lies in shared memory, and any other publisher on the host finds it
        there and sends it. Where shared memory cannot be had, `survives` is false, and events
        that were not sent are lost with the process.

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
        ring_bytes: int = shared_ring.DEFAULT_BYTES,
        when_full: WhenFull = "block",
        block_s: float = 30.0,
    ) -> None:
        self._when_full: WhenFull = when_full
        self._block_s = block_s
        self._capacity = capacity
        self._ring_bytes = ring_bytes
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

    @property
    def refused(self) -> int:
        """How often the hub said that it cannot take events now, for example for a full disk."""
        return self._sender.refused

    def publish(self, event: events.Event, *, at_once: bool = True) -> int:
        """Accept an event and return its sequence number, from 1.

        Args:
            event: What to publish.
            at_once: Send it now; else it, and the hub's answer, may each wait for 25 ms where
                events follow each other quickly, so that a training is disturbed less often.

        Raises:
            OutboxFullError: No room, by the rule of `when_full`; nothing was accepted.
            ValueError: The event is larger than `frames.MAX_EVENT`.
            HubRefusedError: This client's key does not allow what it published before.
            ClosedError: `close` was called.
        """
        if self._closed:
            raise ClosedError("publish() on a closed publisher")
        if self._forked:
            self._own_link = True
            self._begin(Link(self._endpoint))
        if self._sender.forbidden is not None:
            raise self._sender.forbidden
        topic, body = event.topic, codec.encode(event)
        if len(body) > frames.MAX_EVENT:
            raise ValueError(f"a {event.type} of {len(body)} bytes, at most {frames.MAX_EVENT} fit")
        seq = self._outbox.put(topic, body) or self._put_into_full(topic, body)
        if at_once or seq % frames.BATCH_EVENTS == 0:
            self._link.wake()
        else:
            self._link.offer()
        return seq

    @property
    def last(self) -> int:
        """Sequence number of the newest event; 0 before the first."""
        return self._outbox.last

    def acknowledged(self, seq: int) -> bool:
        """Tell whether the hub has the event that `publish` gave this number, on disk."""
        return self._outbox.base > seq

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until the hub has everything accepted so far; False if it does not in time."""
        outbox = self._outbox
        goal = outbox.last
        self._link.wake()
        with outbox.changed:
            return outbox.changed.wait_for(lambda: outbox.base > goal, timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Flush for up to `timeout_s` seconds and close; False if something was not delivered."""
        if self._closed:
            return True
        self._closed = True
        _open.discard(self)
        if self._forked:
            return True
        delivered = self._sender.forbidden is None and self.flush(timeout_s)
        if not delivered and self.survives:
            logger.info("closed with %d events that others on this host will send", self.pending)
        elif not delivered:
            logger.warning(
                "closed with %d events that no hub at %s took in %g s",
                self.pending,
                self._link.endpoint,
                timeout_s,
            )
        self._link.detach(self._sender)
        if self._own_link:
            self._link.close()
        self._outbox.close()
        return delivered

    def note_fork(self) -> None:
        """Begin anew with the next event: this process is a child of the one that made it."""
        self._forked = True

    def _begin(self, link: Link) -> None:
        self._forked = False
        self._link = link
        identity = uuid.uuid4().bytes
        memory = (
            shared_ring.create(link.endpoint, identity, self._ring_bytes)
            if self._ring_bytes
            else None
        )
        self.survives = memory is not None  #: whether events outlive this process
        self._outbox = Outbox(self._capacity, memory)
        self._sender = Sender(identity, self._outbox)
        link.attach(self._sender)
        link.attach(Adopter(link))

    def _put_into_full(self, topic: str, body: bytes) -> int:
        outbox = self._outbox
        deadline = time.monotonic() + (self._block_s if self._when_full == "block" else 0.0)
        while (seq := outbox.put(topic, body)) is None:
            if self._when_full == "drop_oldest" and outbox.drop_oldest():
                self.dropped += 1
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not outbox.wait_for_room(left):
                raise OutboxFullError(
                    outbox.capacity, self._block_s if self._when_full == "block" else 0.0
                )
        return seq


_open: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _note_fork() -> None:
    for publisher in _open:
        publisher.note_fork()


os.register_at_fork(after_in_child=_note_fork)


@atexit.register
def _flush_at_exit() -> None:
    for publisher in list(_open):
        publisher.close()
