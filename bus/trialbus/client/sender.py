"""Sender: the part of a link that empties outboxes, this process's and those of the dead."""

from __future__ import annotations

import logging
import time

from trialbus.client import shared_ring
from trialbus.client.link import Link, Send
from trialbus.client.outbox import Outbox
from trialbus.errors import HubRefusedError
from trialbus.protocol import frames

logger = logging.getLogger(__name__)

_WINDOW = 4096  # events under way
_RESEND_S = 1.0
_RESEND_MAX_S = 8.0
_RETRY_S = 0.1
_SWEEP_S = 1.0


class Sender:
    """The part of a link that empties an outbox: go-back-N with a window.

    Args:
        publisher: Under whose id the events go.
        outbox: What is to be sent.
    """

    def __init__(self, publisher: bytes, outbox: Outbox) -> None:
        self.outbox = outbox
        self._id = publisher
        self._resend_s = _RESEND_S
        self._progress_at = 0.0
        self._waiting = False  # for an acknowledgement
        self.forbidden: HubRefusedError | None = None  #: why the hub will never take them
        self.refused = 0  #: how often the hub said that it cannot take events

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Send again what the old connection may have lost."""
        self.outbox.go_back()
        self._waiting = False

    def on_frame(self, frame: frames.ToClient) -> None:
        """Take an acknowledgement."""
        if isinstance(frame, frames.Refused) and frame.about == self._id.hex():
            if frame.code == frames.FORBIDDEN:
                self.forbidden = HubRefusedError(frame.code, frame.reason)
            if not self.refused:
                logger.warning(
                    "the hub takes no events: %s; they are kept and sent again", frame.reason
                )
            self.refused += 1
        if not isinstance(frame, frames.Ack) or frame.publisher != self._id:
            return
        if self.outbox.acknowledge(frame.last):
            self._progress_at = time.monotonic()
            self._resend_s = _RESEND_S

    def work(self, send: Send, now: float) -> float | None:
        """Send what is in the outbox, and again what nobody acknowledged."""
        if self._waiting and now - self._progress_at > self._resend_s:
            self.outbox.go_back()
            self._resend_s = min(2 * self._resend_s, _RESEND_MAX_S)
            self._waiting = False
        while True:
            first, batch = self.outbox.batch(_WINDOW)
            if not batch:
                break
            if not send(frames.Publish(self._id, first, batch, self.outbox.base)):
                self.outbox.go_back()
                self._waiting = False
                return now + _RETRY_S
            self.outbox.mark_sent(len(batch))
            if not self._waiting:
                self._waiting, self._progress_at = True, now
        self._waiting = self._waiting and bool(len(self.outbox))
        return self._progress_at + self._resend_s if self._waiting else None

    def on_close(self) -> None:
        """Nothing is left to be done."""
        return


class Adopter:
    """The part of a link that sends what dead publishers on this host left in shared memory.

    One at a time does so for each hub: whoever gets the lock of the folder, for as long as it
    lives.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock: int | None = None
        self._due = 0.0
        self._adopted: list[tuple[shared_ring.Ring, Sender]] = []

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Look at once; a hub that comes back finds the most to be sent."""
        self._due = 0.0

    def on_frame(self, frame: frames.ToClient) -> None:
        """What concerns an adopted outbox goes to its own sender."""

    def work(self, send: Send, now: float) -> float | None:
        """Look for dead owners' rings, and let go of those that were emptied."""
        if now < self._due:
            return self._due
        self._due = now + _SWEEP_S
        for memory, sender in list(self._adopted):
            if not len(sender.outbox):
                sender.outbox.close()
                self._link.detach(sender)
                self._adopted.remove((memory, sender))
        if self._is_adopter():
            for memory, held in shared_ring.adopt_all(self._link.endpoint):
                self._adopt(memory, held)
        return self._due

    def on_close(self) -> None:
        """Leave what could not be sent to the next one."""
        for _, sender in self._adopted:
            sender.outbox.close()
        if self._lock is not None:
            shared_ring.unlock(self._lock)
            self._lock = None

    def _adopt(self, memory: shared_ring.Ring, held: list[tuple[int, str, bytes]]) -> None:
        logger.info("sending %d events of a publisher that died", len(held))
        events = [(topic, body) for _, topic, body in held]
        sender = Sender(memory.publisher, Outbox(len(events), memory, events, last=held[-1][0]))
        self._adopted.append((memory, sender))
        self._link.attach(sender)

    def _is_adopter(self) -> bool:
        if self._lock is not None:
            return True
        path = shared_ring.directory(self._link.endpoint) / "adopter"
        try:
            path.touch(mode=0o600)
        except OSError:
            return False  # there is no shared memory here
        self._lock = shared_ring.try_lock(path)
        return self._lock is not None
