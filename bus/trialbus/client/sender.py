"""The parts of a link that send outboxes: of this process and of dead publishers."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from pathlib import Path

from trialbus.client.link import Link
from trialbus.client.outbox import Outbox
from trialbus.client.part_driver import Send
from trialbus.client.private_files import unlock
from trialbus.client.ring_directory import (
    adopt_rings,
    list_groups,
    lock_directory,
    remove_group,
)
from trialbus.client.shared_ring import RingEvent, SharedRing
from trialbus.errors import HubRefusedError
from trialbus.protocol import frames, limits

logger = logging.getLogger(__name__)

_RESEND_S = 1.0  # without an acknowledgement; doubles up to the next
_RESEND_MAX_S = 8.0
_SMALLER = 8
_RETRY_S = 0.1  # after a batch that no connection accepted
_SWEEP_S = 1.0
_YIELD_S = 10.0  # long enough for another adopter, which looks every second


class Sender:
    """Sends the events of an outbox by go-back-N with a window.

    Args:
        publisher: Secret of the publisher that numbered the events.
        outbox: The events to send.
    """

    def __init__(self, publisher: bytes, outbox: Outbox) -> None:
        self.outbox = outbox
        self._id = publisher
        self._acknowledged = 0  # sequence number up to which the hub has the events
        self._max_sent = outbox.last  # largest sequence number sent, by a dead publisher perhaps
        self._resend_s = _RESEND_S
        self._progress_at = 0.0  # of the last acknowledgement, or of the first batch sent
        self._has_progressed = False  # the next call of `work` sets `_progress_at`
        self._is_probing = False  # until the next acknowledgement or connection
        self._burst = limits.BATCH_EVENTS  # events of a batch; smaller ones wait for each other
        self._is_useful = True  # whether the connection brought an acknowledgement
        self.forbidden: HubRefusedError | None = None  #: why the hub will never accept the events
        self.refused = 0  #: number of refusals by the hub

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Send every unacknowledged event again: the previous connection may have lost some.

        If the previous connection ended before any acknowledgement, less is sent at a time: the way
        to the hub may cut connections that carry much at once.
        """
        if self.outbox.n_sent and not self._is_useful:
            self._burst = max(1, self._burst // _SMALLER)
        self.outbox.go_back()
        self._is_probing = self._is_useful = False

    def on_frame(self, frame: frames.ToClient) -> None:
        """Handle an acknowledgement or a refusal."""
        if isinstance(frame, frames.Refused) and frame.about == self._id.hex():
            if frame.code == frames.FORBIDDEN:
                self.forbidden = HubRefusedError(frame.code, frame.reason)
            if not self.refused:
                logger.warning(
                    "the hub refuses events: %s; they are kept and sent again", frame.reason
                )
            self.refused += 1
        if not isinstance(frame, frames.Ack) or frame.publisher != self._id:
            return
        if frame.last > self._max_sent:
            self._begin_anew(frame.last)
            return
        self.outbox.window = frame.window
        self._acknowledged = max(self._acknowledged, frame.last)
        if self.outbox.acknowledge(frame.last):
            self._has_progressed = self._is_useful = True
            self._burst = min(2 * self._burst, limits.BATCH_EVENTS)
            self._resend_s = _RESEND_S

    def work(self, send: Send, now: float) -> float | None:
        """Send the unsent events; after `_resend_s` without progress, the oldest event again.

        The others follow after an acknowledgement: a stalled hub already holds a window in memory.
        """
        if self._has_progressed:
            self._has_progressed = self._is_probing = False
            self._progress_at = now
        if self.outbox.n_sent and now - self._progress_at > self._resend_s:
            self.outbox.go_back()
            self._resend_s = min(2 * self._resend_s, _RESEND_MAX_S)
            self._is_probing = True
        n_events = 1 if self._is_probing else self._burst
        while n_events == limits.BATCH_EVENTS or not self.outbox.n_sent:
            first, batch = self.outbox.next_batch(n_events)
            if not batch:
                break
            publish = frames.Publish(self._id, first, batch, self.outbox.base, self._acknowledged)
            if not send(publish):
                self.outbox.go_back()
                return now + _RETRY_S
            if not self.outbox.n_sent:
                self._progress_at = now
            self.outbox.mark_sent(batch)
            self._max_sent = max(self._max_sent, first + len(batch) - 1)
        return self._progress_at + self._resend_s if self.outbox.n_sent else None

    def _begin_anew(self, last: int) -> None:
        """Continue under a new publisher id, since another process sent events under the old id."""
        logger.error(
            "the hub has %d events of this publisher, which sent %d: another process used its id."
            " It continues under a new id, with unsent events in this process's memory only",
            last,
            self._max_sent,
        )
        self._id = uuid.uuid4().bytes
        self._acknowledged = 0
        self.outbox.go_back()
        self._is_probing = False

    def on_close(self) -> None:
        """Leave the outbox open: the publisher closes the outbox."""


class Adopter:
    """Sends the events that dead publishers on this host left in shared memory.

    One adopter at a time does so for each hub: the holder of the lock in the folder of the rings.
    The rings of a training are left to its worker while the worker lives (see `handover`).
    An adopter whose key does not allow the events leaves the ring and, for a while, the lock to
    others on this host.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock: int | None = None
        self._due = 0.0
        self._rings: list[AdoptedRing] = []
        self._forbidden: set[Path] = set()  # rings that the key of this process may not send
        self._yields_until = 0.0
        self.damaged = 0  #: number of events in adopted rings that were damaged and are not sent

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Search for rings at once: most are left behind while no hub is running."""
        self._due = 0.0

    def on_frame(self, frame: frames.ToClient) -> None:
        """Ignore every frame: the sender of each adopted ring is a part of the link."""

    def work(self, send: Send, now: float) -> float | None:
        """Adopt the rings of dead publishers, and close adopted rings that are empty."""
        if now < self._due:
            return self._due
        self._due = now + _SWEEP_S
        self._rings = [ring for ring in self._rings if ring.attach_next()]
        self._leave_forbidden(now)
        if now >= self._yields_until and self._is_adopter():
            self._adopt()
            for group in list_groups(self._link.endpoint):
                lock = lock_directory(self._link.endpoint, group)
                if lock is not None:  # the worker of the group is dead
                    self._adopt(group)
                    remove_group(self._link.endpoint, group)
                    unlock(lock)
        return self._due

    def on_close(self) -> None:
        """Close the adopted rings and unlock the folder for the next adopter."""
        for ring in self._rings:
            ring.close()
        self._unlock()

    def _adopt(self, group: str = "") -> None:
        for ring, events in adopt_rings(self._link.endpoint, group, without=self._forbidden):
            logger.info("sending %d events of a publisher that died", len(events))
            self.damaged += ring.damaged
            self._rings.append(AdoptedRing(self._link, ring, events))

    def _leave_forbidden(self, now: float) -> None:
        """Leave the rings whose events the hub does not take from this process to others."""
        forbidden = [ring for ring in self._rings if ring.is_forbidden]
        if not forbidden:
            return
        for ring in forbidden:
            self._rings.remove(ring)
            self._forbidden.add(ring.path)
            ring.close()
        self._unlock()
        self._yields_until = now + _YIELD_S

    def _unlock(self) -> None:
        if self._lock is not None:
            unlock(self._lock)
            self._lock = None

    def _is_adopter(self) -> bool:
        if self._lock is None:
            self._lock = lock_directory(self._link.endpoint)
        return self._lock is not None


class AdoptedRing:
    """The ring of a dead publisher, sent in runs: an outbox's numbers have no gap, a ring's may."""

    def __init__(self, link: Link, ring: SharedRing, events: list[RingEvent]) -> None:
        self._link = link
        self._ring = ring
        self._runs = _split_at_gaps(events)
        self._sender = self._attach_sender()

    def attach_next(self) -> bool:
        """Start the next run once the hub has the previous run; close the ring after the last.

        Returns:
            Whether events are left to send.
        """
        if len(self._sender.outbox):
            return True
        self._link.detach(self._sender)
        if not self._runs:
            self._sender.outbox.close()
            return False
        self._sender = self._attach_sender()
        return True

    @property
    def path(self) -> Path:
        """File of the ring."""
        return self._ring.path

    @property
    def n_left(self) -> int:
        """Number of events that the hub has not acknowledged."""
        return len(self._sender.outbox) + sum(map(len, self._runs))

    @property
    def is_forbidden(self) -> bool:
        """Whether the hub will not take the events from this process."""
        return self._sender.forbidden is not None

    def close(self) -> None:
        """Close the ring; the next adopter sends the unsent events."""
        self._link.detach(self._sender)
        self._sender.outbox.close()

    def _attach_sender(self) -> Sender:
        run = self._runs.popleft()
        messages = [(event.topic, event.body) for event in run]
        outbox = Outbox(len(run), self._ring, messages, last=run[-1].seq)
        sender = Sender(self._ring.publisher, outbox)
        self._link.attach(sender)
        return sender


def _split_at_gaps(events: list[RingEvent]) -> deque[list[RingEvent]]:
    runs: deque[list[RingEvent]] = deque()
    previous: int | None = None
    for event in events:
        if previous is None or event.seq != previous + 1:
            runs.append([])
        runs[-1].append(event)
        previous = event.seq
    return runs
