"""Channels: how a process sends a trial's events and receives commands for the trial."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Protocol

from trialbus.client.handover import is_started_by_worker, note_signal
from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import subscribe
from trialbus.messages import events
from trialbus.trainer.attempt_limits import AttemptLimits

logger = logging.getLogger(__name__)

_FLUSH_S = 10.0
_WARNED = (events.EvaluationComplete, events.ArtifactLogged, events.TrialAttributeSet)
_FIRST_REPEAT_S = 10.0
_REPEAT_S = 30.0


class Channel(Protocol):
    """Sender of a trial's events and receiver of commands for the trial."""

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Accept an event without waiting; without `at_once` the event may be sent later."""

    def find_prune(self, attempt: int) -> events.Prune | None:
        """Return the prune command for an attempt, or None if no such command has arrived."""

    def wait_for_decision(self, attempt: int, step: int, wait_s: float) -> events.Prune | None:
        """Wait at most `wait_s` for the decision about a step; None means to go on."""

    def request_param(self, request: events.ParamRequested) -> events.ParamSuggested | events.Prune:
        """Wait for the answer to a request for a param, or for a command to end the attempt."""
        ...

    def note_signal(self) -> bool:
        """Tell the worker that a signal ends this process; False if no worker will know."""
        ...

    def close(self) -> None:
        """Hand over the events that are left and close the connection."""


class _ReceivingChannel:
    """Part of a channel: receives the commands for a trial over a link."""

    def __init__(self, link: Link, assigned: events.TrialAssigned) -> None:
        self._link = link
        self._commands = subscribe(
            events.Prune,
            events.Proceed,
            events.ParamSuggested,
            study=assigned.study,
            trial=assigned.trial,
            link=link,
        )
        self._expired: events.Prune | None = None
        self._has_new_command = False  # since the last call of `find_prune`
        self._commands.wake_on_arrival(self._note_arrival)

    def find_prune(self, attempt: int) -> events.Prune | None:
        """Return the prune command for an attempt, or None if no such command has arrived."""
        if not self._has_new_command:
            return None
        self._has_new_command = False
        while self._commands.available:
            event = self._commands.next(0.0)
            if isinstance(event, events.Prune) and event.attempt == attempt:
                return event
        return self._expired

    def wait_for_decision(self, attempt: int, step: int, wait_s: float) -> events.Prune | None:
        """Wait at most `wait_s` for the decision about a step; None means to go on."""
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

    def find_answer(
        self, request: events.ParamRequested, wait_s: float
    ) -> events.ParamSuggested | events.Prune | None:
        """Return the answer to a request for a param, or a command to end the attempt."""
        deadline = time.monotonic() + wait_s
        while (event := self._commands.next(max(0.0, deadline - time.monotonic()))) is not None:
            if event.attempt != request.attempt:
                continue
            match event:
                case events.Prune():
                    return event
                case events.ParamSuggested() if event.name == request.name:
                    return event
                case _:
                    continue
        return self._expired

    def _note_arrival(self) -> None:
        self._has_new_command = True


class BusChannel(_ReceivingChannel):
    """A trial's channel over a link: outbox, commands and presence share the link's thread.

    Where no worker ends the process, the channel fails a trial that exceeds a limit of time or of
    silence, and the next report receives a prune command.
    """

    def __init__(self, link: Link, presence: Presence, assigned: events.TrialAssigned) -> None:
        # Subscribed before the publisher is made: the hub knows the subscription before any report.
        super().__init__(link, assigned)
        self._presence = presence
        self._publisher = Publisher(link=link)
        self._assigned = assigned
        self._limits: AttemptLimits | None = None
        if not is_started_by_worker(assigned.request):
            self._limits = AttemptLimits(assigned, lambda: self._publisher.last, self._expire)

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Put an event into the outbox."""
        self._publisher.publish(event, at_once=at_once)

    def request_param(self, request: events.ParamRequested) -> events.ParamSuggested | events.Prune:
        """Wait for the answer to a request for a param, or for a command to end the attempt.

        Without an answer the request is repeated, since the optimizer may have been started again.
        """
        repeat_s = _FIRST_REPEAT_S
        while True:
            self._publisher.publish(request)
            answer = self.find_answer(request, repeat_s)
            if answer is not None:
                return answer
            logger.warning(
                "no answer to the request for the param %r of trial %d of %r for %g s: does an "
                "optimizer serve this bus?",
                request.name,
                request.trial,
                request.study,
                repeat_s,
            )
            repeat_s = _REPEAT_S

    def note_signal(self) -> bool:
        """Tell the worker that a signal ends this process; False if no worker will know."""
        return note_signal(self._link.endpoint, self._assigned.request)

    def close(self) -> None:
        """Send the events of the outbox, end the session and close the link."""
        if self._limits is not None:
            self._limits.close()
        self._publisher.close(_FLUSH_S)
        self._presence.close()
        self._link.close()

    def _expire(self, cause: events.FailureCause, reason: str) -> None:
        """Fail the trial, and let the next report end the training."""
        assigned = self._assigned
        attempt: dict[str, Any] = {
            "study": assigned.study,
            "trial": assigned.trial,
            "attempt": assigned.attempt,
        }
        self.publish(events.TrialFinished(**attempt, state="failed", cause=cause, error=reason))
        self._expired = events.Prune(**attempt, step=0, reason=reason)
        self._note_arrival()


class SilentChannel:
    """The channel of a process that does not speak for its trial, since another process does.

    Args:
        warning: What is logged when an evaluation, an artifact or an attribute is dropped; empty
            where that is how it should be, as on the other ranks of a distributed training.
    """

    def __init__(self, warning: str = "") -> None:
        self._warning = warning

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Drop the event, which the other process publishes if anybody does."""
        if self._warning and isinstance(event, _WARNED):
            logger.warning("%s", self._warning)
            self._warning = ""

    def find_prune(self, attempt: int) -> events.Prune | None:
        """Return None: the other process receives the command."""

    def wait_for_decision(self, attempt: int, step: int, wait_s: float) -> events.Prune | None:
        """Return None: the other process waits."""

    def request_param(self, request: events.ParamRequested) -> events.ParamSuggested:
        """Return an error: the other process asks."""
        return events.ParamSuggested(
            trial=request.trial,
            name=request.name,
            error="another process speaks for this trial, and this one cannot ask for params",
        )

    def note_signal(self) -> bool:
        """Return False: the other process tells the worker."""
        return False

    def close(self) -> None:
        """Return at once: there is no connection."""


class ListeningChannel(_ReceivingChannel, SilentChannel):
    """The channel of a process that receives the commands for a trial and publishes nothing."""

    def __init__(self, link: Link, assigned: events.TrialAssigned, warning: str = "") -> None:
        _ReceivingChannel.__init__(self, link, assigned)
        SilentChannel.__init__(self, warning)

    def close(self) -> None:
        """Close the link."""
        self._link.close()


class PrintingChannel:
    """The channel of a stand-alone trial: prints evaluations, attributes and the trial's end."""

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        """Print an evaluation, an attribute or the trial's end."""
        match event:
            case events.EvaluationComplete():
                metrics = "  ".join(f"{name} {value:.5g}" for name, value in event.metrics.items())
                print_line(f"step {event.step}  {metrics}  ({event.elapsed_s:.1f} s)")
            case events.TrialAttributeSet():
                print_line(f"{event.key} = {event.value!r}")
            case events.TrialFinished():
                print_line(event.state)
            case _:
                return

    def find_prune(self, attempt: int) -> None:
        """Return None: no optimizer prunes a stand-alone trial."""

    def wait_for_decision(self, attempt: int, step: int, wait_s: float) -> None:
        """Return None: no optimizer decides about a stand-alone trial."""

    def request_param(self, request: events.ParamRequested) -> events.ParamSuggested:
        """Return an error: no sampler suggests params of a stand-alone trial."""
        return events.ParamSuggested(
            trial=request.trial, name=request.name, error="a stand-alone trial has no sampler"
        )

    def note_signal(self) -> bool:
        """Return False: no worker started a stand-alone trial."""
        return False

    def close(self) -> None:
        """Return at once: a stand-alone trial has no connection."""


def print_line(line: str) -> None:
    """Print a line for the user of a training script, which may have no logging set up."""
    print(f"trialbus: {line}", file=sys.stderr, flush=True)  # noqa: T201
