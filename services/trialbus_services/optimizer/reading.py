"""Reading: the durable name under which an optimizer reads the log, and the names before."""

from __future__ import annotations

from typing import Any, Final

from trialbus.client.admin import forget_name, hub_status
from trialbus.client.link import Link
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus_services.optimizer.loop import OptimizerLoop

READING: Final = "optimizer-3"
"""Durable name of the optimizer.

The hub keeps the types of events with a name: `OptimizerLoop.TYPES` and this name change together.
"""

_EARLIER: Final = ("optimizer-2", "optimizer")
"""Names of earlier versions, which read fewer types of events; the newest first."""


def begin_reading(link: Link, timeout_s: float) -> tuple[Subscriber[Any], int]:
    """Subscribe to the events that an optimizer reads, and return the committed offset, too.

    In a log that an earlier version has read, the optimizer goes on where that version committed.

    Raises:
        HubUnavailableError: The hub did not answer within `timeout_s` seconds.
    """
    names = hub_status(link, timeout_s).durable
    offsets = [names[name].offset for name in _EARLIER if name in names]
    inbox = subscribe(
        *OptimizerLoop.TYPES,
        name=READING,
        start=offsets[0] if offsets else "earliest",
        autocommit=False,
        link=link,
    )
    committed = inbox.wait_ready(timeout_s)
    for name in _EARLIER:
        if name in names:
            forget_name(link, name, timeout_s)
    return inbox, committed
