"""Protocols of the bus clients of the optimizer's loop: subscriber, publisher and replay."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from trialbus.client.subscriber import Record
from trialbus.messages import events


class Inbox(Protocol):
    """The subscriber of a durable name; `trialbus.Subscriber` is an implementation."""

    @property
    def offset(self) -> int | None:
        """Offset after the last record returned; None before the first record."""
        ...

    @property
    def caught_up(self) -> bool:
        """Whether every record up to the end of the log was returned."""
        ...

    def records(self, timeout_s: float | None = None) -> list[Record]:
        """Return the next batch of records; empty after `timeout_s` seconds without a record."""
        ...

    def commit(self, offset: int | None = None) -> bool:
        """Commit an offset: the records before the offset are not returned after a restart."""
        ...


class EventPublisher(Protocol):
    """A publisher of events; `trialbus.Publisher` is an implementation."""

    @property
    def last(self) -> int:
        """Sequence number of the event published last."""
        ...

    def publish(self, event: events.Event) -> int:
        """Publish an event and return the event's sequence number."""
        ...

    def acknowledged(self, seq: int) -> bool:
        """Return whether all events up to a sequence number are in the log."""
        ...


class Replay(Protocol):
    """A function that reads a range of the log again; `trialbus.replay` is an implementation."""

    def __call__(
        self,
        *types: type[events.Event],
        study: str | None = None,
        start: int = 0,
        end: int | None = None,
    ) -> Iterator[Record]:
        """Yield the records of `types` from offset `start` up to `end`."""
        ...


class RequesterCheck(Protocol):
    """Compares requesters with the hub's sessions; `session_check.SessionCheck` implements it."""

    @property
    def is_due(self) -> bool:
        """Whether it is time for a question."""
        ...

    def ask(self, sessions: Collection[str]) -> None:
        """Ask the hub which of some sessions it knows."""
        ...

    def take_unknown(self) -> Collection[str]:
        """Return the sessions that turned out to be unknown since the last call."""
        ...


@dataclass(frozen=True)
class BusClients:
    """The clients by which an optimizer uses the bus."""

    inbox: Inbox
    """Subscriber of the events from the committed offset on."""
    publisher: EventPublisher
    """Publisher of the optimizer's events."""
    replay: Replay
    """Reads events before the committed offset again."""
    committed: int
    """Offset that was committed when the optimizer started."""
    requesters: RequesterCheck | None = None
    """Finds requesters that the hub does not know; None trusts every requester."""
