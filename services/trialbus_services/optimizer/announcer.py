"""Announcer: publishes the optimizer's conclusions behind the storage, and commits behind both.

A trial is in the storage before the trial is handed out, and the end of a study before the study
is declared finished. An offset is committed when everything before the offset is recorded,
announced, and acknowledged by the hub.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from trialbus.messages import events
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind

logger = logging.getLogger(__name__)

_COMMIT_S = 0.25
_GIVE_UP_S = 60.0
_ADVICE = (
    "the log of the hub keeps what is missing, and the optimizer records it when the storage can "
    "be written again"
)


@dataclass
class _Announcement:
    """An event to publish once the storage has all changes before a mark."""

    mark: int
    event: events.Event
    at: float
    """Time of the announcement, by the clock."""
    requested_at: float | None = None
    request: events.TrialRequested | None = None
    """Request that the event answers."""
    trial_id: int | None = None
    """Id of the trial in the storage, of an event about a new state of a trial."""


@dataclass
class _PendingCommit:
    """An offset to commit once all earlier events are recorded and acknowledged."""

    offset: int
    mark: int
    """Changes before this mark of the storage have to be recorded."""
    n_published: int
    """Number of announcements that have to be published."""
    seq: int | None = None
    """Sequence number that the hub has to acknowledge; None until all are published."""


class Announcer:
    """Publishes events and commits offsets, both in step with the storage.

    Args:
        storage: Storage that has to record a conclusion before its event is published.
        bus: Publisher of the events, and inbox whose offset is committed.
        answer_latency: Collects the seconds from a request to its answer.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        storage: WriteBehind,
        bus: BusClients,
        *,
        answer_latency: Latency,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._publisher = bus.publisher
        self._inbox = bus.inbox
        self.committed = bus.committed
        self._answer_latency = answer_latency
        self._clock = clock
        self._announcements: deque[_Announcement] = deque()
        #: Events that are not published, about trials that another program has, with the request.
        self.void: list[tuple[events.Event, events.TrialRequested | None]] = []
        self._n_published = 0
        self._pending_commit: _PendingCommit | None = None
        self._commit_began_at = 0.0

    def announce(
        self,
        event: events.Event,
        requested_at: float | None = None,
        *,
        hurry: bool = True,
        request: events.TrialRequested | None = None,
        trial_id: int | None = None,
    ) -> None:
        """Publish an event as soon as the storage has every earlier change.

        An event about a trial that another program turns out to have is put into `void` instead.

        Args:
            event: The event.
            requested_at: Time of the request that the event answers, by the clock.
            request: Request that the event answers.
            trial_id: Id in the storage of the trial whose new state the event tells.
            hurry: Whether to write the changes now; else they are written with the next batch.
        """
        self._announcements.append(
            _Announcement(
                self._storage.mark(), event, self._clock(), requested_at, request, trial_id
            )
        )
        if hurry:
            self._storage.request_write()

    def publish_recorded(self) -> None:
        """Publish announcements in order, up to the first with changes that are not recorded."""
        while self._announcements and self._storage.is_recorded(self._announcements[0].mark):
            if self._storage.lost_storage is not None:  # with what was recorded
                return
            announcement = self._announcements.popleft()
            self._n_published += 1
            if announcement.trial_id is not None and self._storage.is_taken(announcement.trial_id):
                self.void.append((announcement.event, announcement.request))
                continue
            self._publisher.publish(self._correct_end(announcement.event))
            if announcement.requested_at is not None:
                self._answer_latency.add(self._clock() - announcement.requested_at)

    def give_up_waiting(self) -> None:
        """Publish the ends of studies that wait too long for the storage, as failed.

        Their offset is not committed: the log keeps what the storage lacks, which is recorded as
        soon as that is possible.
        """
        if self._storage.failing_since is None:
            return
        for i, announcement in enumerate(self._announcements):
            event, waited_s = announcement.event, self._clock() - announcement.at
            if isinstance(event, events.StudyFinished) and waited_s > _GIVE_UP_S:
                del self._announcements[i]
                self._n_published += 1
                reason = f"{self._storage.last_error} for {waited_s:.0f} s"
                logger.error("the end of study %r cannot be recorded: %s", event.study, reason)
                self._publisher.publish(_make_unrecorded(event, f"{reason}; {_ADVICE}"))
                return

    def _correct_end(self, event: events.Event) -> events.Event:
        """Return the end of a study, as failed if the storage lost the study."""
        if not isinstance(event, events.StudyFinished) or event.reason == "failed":
            return event
        loss = self._storage.find_loss(event.study)
        return event if loss is None else _make_unrecorded(event, loss)

    def commit(self, *, hold: bool) -> None:
        """Commit the offset that is due; with `hold`, no new offset becomes due."""
        if self._storage.lost_storage is not None:
            return
        commit = self._pending_commit or (None if hold else self._begin_commit())
        if commit is None or self._n_published < commit.n_published:
            return
        if not self._storage.is_recorded(commit.mark):
            return
        if commit.seq is None:
            commit.seq = self._publisher.last
        if self._publisher.acknowledged(commit.seq):
            self._inbox.commit(commit.offset)
            self.committed = commit.offset
            self._pending_commit = None

    def _begin_commit(self) -> _PendingCommit | None:
        offset, now = self._inbox.offset, self._clock()
        if offset is None or offset == self.committed or now - self._commit_began_at < _COMMIT_S:
            return None
        self._commit_began_at = now
        n_published = self._n_published + len(self._announcements)
        self._pending_commit = _PendingCommit(offset, self._storage.mark(), n_published)
        return self._pending_commit


def _make_unrecorded(event: events.StudyFinished, reason: str) -> events.StudyFinished:
    """Return the end of a study whose end could not be recorded."""
    error = f"the study's end ({event.reason}) could not be recorded: {reason}"
    return msgspec.structs.replace(event, reason="failed", error=error)
