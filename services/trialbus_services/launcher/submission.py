"""Submission: publishes a study's submission, and publishes it again if the log has lost it."""

from __future__ import annotations

import contextlib

import msgspec

from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import replay
from trialbus.errors import HubUnavailableError, LogResetError
from trialbus.messages import events
from trialbus_services.launcher.supervisor import Services


class Submission:
    """The submission of a study, which the optimizer needs for as long as the study runs.

    Args:
        event: The submission.
        publisher: Publishes the submission.
        services: Services of the study, which know when the log may have lost events.
    """

    def __init__(
        self, event: events.StudySubmitted, publisher: Publisher, services: Services
    ) -> None:
        self.event = event
        self._publisher = publisher
        self._services = services
        self._seq = 0
        self._checked = services.log_state

    def publish(self) -> None:
        """Publish the submission."""
        self._seq = self._publisher.publish(self.event)
        self._checked = self._services.log_state

    def renew(self) -> bool:
        """Publish the submission again, and return true, if the log has lost the submission.

        The log is read only after a change of the hub or of the number of lost events.
        """
        state = self._services.log_state
        if state == self._checked or not self._publisher.acknowledged(self._seq):
            return False
        try:
            is_in_log = self._is_in_log()
        except (HubUnavailableError, LogResetError):
            return False  # later
        self._checked = state
        if not is_in_log:
            self.publish()
        return not is_in_log

    def _is_in_log(self) -> bool:
        records = replay(events.StudySubmitted, study=self.event.study, link=self._services.link)
        for record in records:
            with contextlib.suppress(msgspec.DecodeError):
                event = record.event
                if (
                    isinstance(event, events.StudySubmitted)
                    and event.submission == self.event.submission
                ):
                    return True
        return False
