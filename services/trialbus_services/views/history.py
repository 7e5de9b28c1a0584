"""Studies of a log, with the offset of the newest run of each study."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from trialbus.client.link import Link
from trialbus.client.subscriber import replay
from trialbus.messages import events
from trialbus.protocol.frames import Record

#: Types of the events that make up a history.
HISTORY_TYPES = (events.StudySubmitted, events.StudyStarted, events.StudyFinished)


@dataclass
class History:
    """Submissions, starts and ends of a study in the log."""

    study: str
    """Name of the study."""

    start: int
    """Offset of the start of the newest run: the first submission after an end."""

    began_at: float
    """Time of the start of the newest run, in seconds since the epoch."""

    before: list[events.Event] = field(default_factory=list[events.Event])
    """Events of earlier runs."""

    state: Literal["submitted", "running", "finished"] = "submitted"
    """State of the newest run."""

    n_trials: int = 0
    """Number of trials of the newest run."""

    _run: list[events.Event] = field(default_factory=list[events.Event])

    def describe(self) -> str:
        """Describe the state of the study in a few words."""
        last = self._run[-1]
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.at))
        if isinstance(last, events.StudyFinished):
            return f"{last.reason}, {at}"
        return f"{self.state}, {self.n_trials} trials, since {at}"

    def add(self, event: events.Event, offset: int) -> None:
        """Add the study's next event."""
        match event:
            case events.StudySubmitted():
                if self.state == "finished":
                    self.before += self._run
                    self._run = []
                    self.start, self.began_at = offset, event.at
                    self.state = "submitted"
                self.n_trials = event.spec.n_trials
            case events.StudyStarted():
                self.state, self.n_trials = "running", event.n_trials
            case events.StudyFinished():
                self.state = "finished"
            case _:
                return
        self._run.append(event)


def read_histories(link: Link) -> dict[str, History]:
    """Read the log once and return the history of each study by name, the oldest first.

    Raises:
        HubUnavailableError: The hub did not answer.
    """
    return collect_histories(replay(*HISTORY_TYPES, link=link))


def collect_histories(records: Iterable[Record]) -> dict[str, History]:
    """Return the history of each study in records of a log by name, the oldest first."""
    histories: dict[str, History] = {}
    for record in records:
        with contextlib.suppress(msgspec.DecodeError):
            event = record.event
            if isinstance(event, HISTORY_TYPES):
                history = histories.setdefault(
                    event.study, History(event.study, record.offset, event.at)
                )
                history.add(event, record.offset)
    return histories
