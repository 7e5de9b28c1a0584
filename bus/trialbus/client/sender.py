"""The parts of a link that send outboxes: this process's and those of dead publishers."""

from __future__ import annotations

import logging

from trialbus.client import shared_ring
from trialbus.client.link import Link, Send
from trialbus.client.outbox import Outbox
from trialbus.errors import HubRefusedError
from trialbus.protocol import frames

logger = logging.getLogger(__name__)

_WINDOW = 4096  # largest number of events sent and unacknowledged
_RESEND_S = 1.0  # without an acknowledgement; doubles up to the next
_RESEND_MAX_S = 8.0
_RETRY_S = 0.1  # after a batch that no connection accepted
_SWEEP_S = 1.0


class Sender:
    """Sends the events of an outbox by go-back-N with a window.

    Args:
        publisher: Id of the publisher that numbered the events.
        outbox: The events to send.
    """

    def __init__(self, publisher: bytes, outbox: Outbox) -> None:
        self.outbox = outbox
        self._id = publisher
        self._resend_s = _RESEND_S
        self._progress_at = 0.0  # of the last acknowledgement, or of the first batch sent
        self._has_progressed = False  # the next call of `work` sets `_progress_at`
        self._is_waiting = False  # for an acknowledgement
        self.forbidden: HubRefusedError | None = None  #: why the hub will never accept the events
        self.refused = 0  #: number of refusals by the hub

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Send every unacknowledged event again: the previous connection may have lost some."""
        self.outbox.go_back()
        self._is_waiting = False

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
        if self.outbox.acknowledge(frame.last):
            self._has_progressed = True
            self._resend_s = _RESEND_S

    def work(self, send: Send, now: float) -> float | None:
        """Send the unsent events; after `_resend_s` without progress, every event again."""
        if self._has_progressed:
            self._has_progressed = False
            self._progress_at = now
        if self._is_waiting and now - self._progress_at > self._resend_s:
            self.outbox.go_back()
            self._resend_s = min(2 * self._resend_s, _RESEND_MAX_S)
            self._is_waiting = False
        while True:
            first, batch = self.outbox.next_batch(_WINDOW)
            if not batch:
                break
            if not send(frames.Publish(self._id, first, batch, self.outbox.base)):
                self.outbox.go_back()
                self._is_waiting = False
                return now + _RETRY_S
            self.outbox.mark_sent(len(batch))
            if not self._is_waiting:
                self._is_waiting, self._progress_at = True, now
        self._is_waiting = self._is_waiting and bool(len(self.outbox))
        return self._progress_at + self._resend_s if self._is_waiting else None

    def on_close(self) -> None:
        """Do nothing: the publisher closes its outbox."""


class Adopter:
    """Sends the events that dead publishers on this host left in shared memory.

    One adopter at a time does so for each hub: the holder of the lock in the folder of the rings.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock: int | None = None
        self._due = 0.0
        self._senders: list[Sender] = []  # of adopted rings

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Search for rings at once: most of them are left behind while no hub is running."""
        self._due = 0.0

    def on_frame(self, frame: frames.ToClient) -> None:
        """Do nothing: the sender of each adopted ring is a part of the link."""

    def work(self, send: Send, now: float) -> float | None:
        """Adopt the rings of dead publishers, and close adopted rings that are empty."""
        if now < self._due:
            return self._due
        self._due = now + _SWEEP_S
        for sender in list(self._senders):
            if not len(sender.outbox):
                sender.outbox.close()
                self._link.detach(sender)
                self._senders.remove(sender)
        if self._is_adopter():
            for ring, events in shared_ring.adopt_all(self._link.endpoint):
                self._adopt(ring, events)
        return self._due

    def on_close(self) -> None:
        """Close the adopted rings and give up the lock; the next adopter sends what is left."""
        for sender in self._senders:
            sender.outbox.close()
        if self._lock is not None:
            shared_ring.unlock(self._lock)
            self._lock = None

    def _adopt(self, ring: shared_ring.SharedRing, events: list[shared_ring.RingEvent]) -> None:
        logger.info("sending %d events of a publisher that died", len(events))
        messages = [(event.topic, event.body) for event in events]
        outbox = Outbox(len(events), ring, messages, last=events[-1].seq)
        sender = Sender(ring.publisher, outbox)
        self._senders.append(sender)
        self._link.attach(sender)

    def _is_adopter(self) -> bool:
        if self._lock is not None:
            return True
        path = shared_ring.directory(self._link.endpoint) / "adopter"
        try:
            path.touch(mode=0o600)
        except OSError:
            return False  # this host has no shared memory
        self._lock = shared_ring.try_lock(path)
        return self._lock is not None
