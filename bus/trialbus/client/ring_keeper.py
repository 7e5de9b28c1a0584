"""RingKeeper: makes the ring of a living publisher again when its file was removed.

Files in shared memory go with the last session of their user, where systemd's `RemoveIPC=yes` says
so, and by hand. What is mapped stays usable, but nobody would find it after the publisher's death.
"""

from __future__ import annotations

import logging

from trialbus.client.outbox import Outbox
from trialbus.client.part_driver import Send
from trialbus.client.ring_directory import create_ring
from trialbus.client.shared_ring import SharedRing
from trialbus.protocol import frames

logger = logging.getLogger(__name__)

_CHECK_S = 1.0


class RingKeeper:
    """The part of a link that looks after the ring of a publisher's outbox.

    Args:
        endpoint: Address of the hub.
        publisher: Id of the publisher.
        outbox: The outbox of the publisher.
    """

    def __init__(self, endpoint: str, publisher: bytes, outbox: Outbox) -> None:
        self._endpoint = endpoint
        self._publisher = publisher
        self._outbox = outbox

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Do nothing: the ring is looked after with and without a hub."""

    def on_frame(self, frame: frames.ToClient) -> None:
        """Ignore every frame."""

    def work(self, send: Send, now: float) -> float | None:
        """Make the ring again if its file is gone."""
        if not self._outbox.survives:
            return None
        if self._outbox.has_lost_ring:
            logger.warning(
                "the file of the outbox in shared memory was removed or replaced; it is made again"
            )
            self._outbox.restore_ring(self._create)
        return now + _CHECK_S

    def on_close(self) -> None:
        """Leave the ring to the publisher, which closes the outbox."""

    def _create(self, capacity: int, base: int) -> SharedRing | None:
        return create_ring(self._endpoint, self._publisher, capacity, base=base)
