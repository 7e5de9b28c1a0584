"""What the optimizer concluded, published when the storage has what led to it.

A trial that is handed out, and a study that ended, are in the database before anybody hears of it.
The offset is committed when everything before it is recorded, said, and in the log.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber
from trialbus.messages import events
from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.storage_writer import WriteBehind

_COMMIT_S = 0.25


@dataclass
class _Said:
    """An event that is published once the storage has everything up to a mark."""

    mark: int
    event: events.Event
    asked_at: float | None = None


@dataclass
class _Commit:
    """An offset to commit once what came before it is recorded, said, and in the log."""

    offset: int
    mark: int
    n_said: int
    seq: int | None = None


class Saying:
    """Publishes behind the storage, and commits behind both.

    Args:
        storage: What has to have a conclusion first.
        publisher: Says it then.
        inbox: Whose offset is committed.
        committed: The offset that is committed already.
        answers: Takes how long requests waited for what is said.
    """

    def __init__(
        self,
        storage: WriteBehind,
        publisher: Publisher,
        inbox: Subscriber[events.AnyEvent],
        committed: int,
        answers: Latency,
    ) -> None:
        self._storage = storage
        self._publisher = publisher
        self._inbox = inbox
        self.committed = committed
        self._answers = answers
        self._waiting: deque[_Said] = deque()
        self._n_said = 0
        self._next: _Commit | None = None
        self._began_at = 0.0

    def say(self, event: events.Event, asked_at: float | None = None) -> None:
        """Publish an event as soon as the storage has everything that led to it."""
        self._waiting.append(_Said(self._storage.mark(), event, asked_at))
        self._storage.hurry()

    def say_recorded(self) -> None:
        """Publish what the storage has by now."""
        while self._waiting and self._storage.recorded(self._waiting[0].mark):
            said = self._waiting.popleft()
            self._publisher.publish(said.event)
            self._n_said += 1
            if said.asked_at is not None:
                self._answers.add(time.monotonic() - said.asked_at)

    def commit(self, *, hold: bool) -> None:
        """Commit what may be; with `hold` no new offset is taken up."""
        commit = self._next or (None if hold else self._begin())
        if commit is None or self._n_said < commit.n_said:
            return
        if not self._storage.recorded(commit.mark):
            return
        if commit.seq is None:
            commit.seq = self._publisher.last
        if self._publisher.acknowledged(commit.seq):
            self._inbox.commit(commit.offset)
            self.committed = commit.offset
            self._next = None

    def _begin(self) -> _Commit | None:
        offset, now = self._inbox.offset, time.monotonic()
        if offset is None or offset == self.committed or now - self._began_at < _COMMIT_S:
            return None
        self._began_at = now
        n_said = self._n_said + len(self._waiting)
        self._next = _Commit(offset, self._storage.mark(), n_said)
        return self._next
