"""Channels: where the events of a trial go, and where its prune command comes from."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import subscribe
from trialbus.messages import events
from trialbus.trainer.assignment import Assignment

_FLUSH_S = 10.0


class Channel(Protocol):
    """Where a trial's events go, and where its prune command comes from."""

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Take an event without waiting; if not `at_once`, it may be sent a moment later."""

    def pruned(self, attempt: int) -> events.Prune | None:
        """Return the prune command for this attempt, if it has come."""

    def decided(self, attempt: int, step: int, wait_s: float) -> events.Prune | None:
        """Wait for the decision about a step, for so long at most; None is to go on."""

    def close(self) -> None:
        """Hand over what is left and end."""


class BusChannel:
    """A trial's channel over a link: outbox, prune command and presence share its thread."""

    def __init__(self, link: Link, presence: Presence, assignment: Assignment) -> None:
        self._link = link
        self._presence = presence
        # Attached before the publisher, so that it stands in the log before the first report.
        self._commands = subscribe(
            events.Prune,
            events.Proceed,
            study=assignment.study,
            trial=assignment.trial,
            link=link,
        )
        self._arrived = False  # a command, since `pruned` looked last
        self._commands.wake_on_arrival(self._note_arrival)
        self._publisher = Publisher(link=link)

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Put an event into the outbox."""
        self._publisher.publish(event, at_once=at_once)

    def pruned(self, attempt: int) -> events.Prune | None:
        """Return the prune command for this attempt, if it has come."""
        if not self._arrived:
            return None
        self._arrived = False
        while self._commands.available:
            event = self._commands.next(0.0)
            if isinstance(event, events.Prune) and event.attempt == attempt:
                return event
        return None

    def decided(self, attempt: int, step: int, wait_s: float) -> events.Prune | None:
        """Wait for the decision about a step."""
        deadline = time.monotonic() + wait_s
        while (event := self._commands.next(max(0.0, deadline - time.monotonic()))) is not None:
            if event.attempt != attempt:
                continue
            match event:
                case events.Prune():
                    return event
                case events.Proceed() if event.step == step:
                    break
                case _:
                    continue
        return None

    def close(self) -> None:
        """Hand over what is in the outbox, say goodbye, and end."""
        self._publisher.close(_FLUSH_S)
        self._presence.close()
        self._link.close()

    def _note_arrival(self) -> None:
        self._arrived = True


class Printer:
    """The channel of a stand-alone trial."""

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Print an event that a person wants to see."""
        match event:
            case events.EvaluationComplete():
                shown = "  ".join(f"{name} {value:.5g}" for name, value in event.metrics.items())
                say(f"step {event.step}  {shown}  ({event.elapsed_s:.1f} s)")
            case events.TrialFinished():
                say(event.state)
            case _:
                return

    def pruned(self, attempt: int) -> None:
        """Nobody prunes a trial that stands alone."""
        return

    def decided(self, attempt: int, step: int, wait_s: float) -> None:
        """Nobody decides about a trial that stands alone."""
        return

    def close(self) -> None:
        """Nothing is left to be done."""
        return


class Listener:
    """The channel of a rank that only follows: rank 0 speaks for the trial."""

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Rank 0 publishes it."""

    def pruned(self, attempt: int) -> None:
        """Rank 0 hears of it."""
        return

    def decided(self, attempt: int, step: int, wait_s: float) -> None:
        """Rank 0 waits for it."""
        return

    def close(self) -> None:
        """Nothing is left to be done."""


def say(line: str) -> None:
    """Tell the user of a training script something; it may have no logging set up."""
    print(f"trialbus: {line}", file=sys.stderr, flush=True)  # noqa: T201
