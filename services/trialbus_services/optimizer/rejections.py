"""Rejections: the events that an optimizer does not apply, counted by reason."""

from __future__ import annotations

import logging

import msgspec

from trialbus.client.subscriber import Record
from trialbus.messages import events
from trialbus_services.optimizer.status_collector import StatusCollector

logger = logging.getLogger(__name__)


class Rejections:
    """Counts the events that are not applied.

    Args:
        collector: Collector of the counts.
    """

    def __init__(self, collector: StatusCollector) -> None:
        self._collector = collector

    def decode(self, record: Record) -> events.AnyEvent | None:
        """Return the event of a record; None, and a rejection, if the event cannot be read."""
        try:
            return record.event
        except msgspec.DecodeError as error:
            event = f"event {record.offset} ({record.topic}): {error}"
            self.reject("it cannot be read", event)
            return None

    def reject(self, reason: str, event: str) -> None:
        """Count an event that is not applied, and log the first for each reason."""
        if self._collector.count_refusal(reason, event):
            logger.warning(
                "not applied, because %s: %s; further ones are only counted", reason, event
            )
