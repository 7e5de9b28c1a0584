"""What studies a log holds, and where in it the newest run of each begins."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from trialbus.client.link import Link
from trialbus.client.subscriber import replay
from trialbus.messages import events


@dataclass
class History:
    """The submissions, beginnings and ends of one study.

    Attributes:
        study: Its name.
        start: Offset where the newest run begins: the first submission after an end.
        began_at: When that was, in seconds since the epoch.
        before: What came before it: how earlier runs began and ended.
        state: How far the newest run got.
        n_trials: Trials it is to come to.
    """

    study: str
    start: int
    began_at: float
    before: list[events.Event] = field(default_factory=list[events.Event])
    state: Literal["submitted", "running", "finished"] = "submitted"
    n_trials: int = 0
    _run: list[events.Event] = field(default_factory=list[events.Event])

    @property
    def described(self) -> str:
        """Its state in a few words."""
        last = self._run[-1]
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.at))
        if isinstance(last, events.StudyFinished):
            return f"{last.reason}, {at}"
        return f"{self.state}, {self.n_trials} trials, since {at}"

    def add(self, event: events.Event, offset: int) -> None:
        """Take in the next of its events."""
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
    """Read the log once and return its studies by name, in the order they first came.

    Raises:
        HubUnavailableError: The hub did not answer.
    """
    found: dict[str, History] = {}
    types = (events.StudySubmitted, events.StudyStarted, events.StudyFinished)
    for record in replay(*types, link=link):
        with contextlib.suppress(msgspec.DecodeError):
            event = record.event
            if isinstance(event, types):
                history = found.setdefault(
                    event.study, History(event.study, record.offset, event.at)
                )
                history.add(event, record.offset)
    return found
