"""Trial: what a training script uses.

```python
with trialbus.attach(defaults={"lr": 1e-3}, budget=20) as trial:
    for epoch in range(trial.budget):
        ...
        trial.report(epoch, {"val/accuracy": accuracy})
```
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

import msgspec

from trialbus import events
from trialbus.endpoint import ENDPOINT_VARIABLE
from trialbus.errors import HubUnavailableError, SpecError, TrialPruned
from trialbus.link import Link
from trialbus.metrics import flatten
from trialbus.presence import Presence
from trialbus.publisher import Publisher
from trialbus.subscriber import subscribe

#: Set by the worker for the process of a trial: an `Assignment` as JSON.
TRIAL_VARIABLE = "TRIALBUS_TRIAL"

_TTL_S = 30.0
_TRACEBACK_LINES = 20
_FLUSH_S = 30.0


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A trial as it is handed to the process that runs it."""

    study: str
    trial: int
    attempt: int = 0
    params: dict[str, Any]
    seed: int = 0
    budget: int | None = None


class Channel(Protocol):
    """Where a trial's events go, and where its prune command comes from."""

    def publish(self, event: events.Event) -> None:
        """Take an event without waiting."""

    def pruned(self, attempt: int, wait_s: float) -> events.Prune | None:
        """Return the prune command for this attempt, if it has come within `wait_s` seconds."""

    def close(self) -> None:
        """Hand over what is left and end."""


class Trial:
    """One trial of a study, from its parameters to its result. Made by `attach`.

    Use it as a context manager around the training: a normal end completes the trial,
    `TrialPruned` ends the `with` block quietly, and any other exception marks the trial failed
    and goes on up.

    Attributes:
        study: Name of the study.
        number: Number of the trial in it, from 0.
        attempt: 0, or more if an earlier attempt at this trial was lost.
        params: Value of each parameter by name, read-only.
        seed: Seed for this trial.
        budget: Steps to train.
    """

    def __init__(self, assignment: Assignment, channel: Channel, budget: int | None) -> None:
        self.study = assignment.study
        self.number = assignment.trial
        self.attempt = assignment.attempt
        self.params: Mapping[str, Any] = MappingProxyType(assignment.params)
        self.seed = assignment.seed
        self._budget = budget if assignment.budget is None else assignment.budget
        self._channel = channel
        self._began = time.monotonic()
        self._prune: events.Prune | None = None
        self._finished = False
        channel.publish(
            events.TrialStarted(
                study=self.study, trial=self.number, attempt=self.attempt, host=socket.gethostname(), pid=os.getpid()
            )
        )

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self.complete()
        elif isinstance(error, TrialPruned):
            self._finish("pruned")
        elif isinstance(error, KeyboardInterrupt):
            self._finish("preempted", error="interrupted from the keyboard")
        else:
            lines = "".join(traceback.format_exception(error)).splitlines()
            self._finish("failed", error="\n".join(lines[-_TRACEBACK_LINES:]))
        self._channel.close()
        return isinstance(error, TrialPruned)

    @property
    def budget(self) -> int:
        """Steps to train, as the study says, else as `attach` was told.

        Raises:
            SpecError: Neither says it.
        """
        if self._budget is None:
            raise SpecError("study.budget", "neither the study nor attach(budget=...) says how many steps to train")
        return self._budget

    def report(self, step: int, metrics: Mapping[str, Any], *, wait_s: float = 0.0) -> None:
        """Publish an evaluation; returns in microseconds, whether or not a hub is there.

        Args:
            step: Which evaluation this is: a non-negative epoch, update or episode.
            metrics: Numbers by name; nested mappings are flattened with `/`. NaN is allowed.
            wait_s: Seconds to wait for the decision about this very step; by default a prune is
                noticed at the first report after it arrived.

        Raises:
            TrialPruned: The trial was pruned. Let it leave the training.
            TypeError: A metric is not one number; names its key.
            ValueError: `step` is negative.
            OutboxFullError: The hub has been away for so long that the outbox is full.

        Example:
            >>> trial.report(3, {"val": {"accuracy": 0.93, "loss": 0.2}})  # doctest: +SKIP
        """
        if step < 0:
            raise ValueError(f"step is {step}, expected 0 or more")
        self._channel.publish(
            events.EvaluationComplete(
                study=self.study,
                trial=self.number,
                attempt=self.attempt,
                step=step,
                metrics=flatten(metrics),
                elapsed_s=time.monotonic() - self._began,
            )
        )
        if self.should_prune(wait_s=wait_s):
            raise TrialPruned(f"trial {self.number} of {self.study!r} was pruned")

    def should_prune(self, *, wait_s: float = 0.0) -> bool:
        """Tell whether a prune command has arrived for this attempt."""
        if self._prune is None:
            self._prune = self._channel.pruned(self.attempt, wait_s)
        return self._prune is not None

    def complete(self, values: float | list[float] | None = None) -> None:
        """End the trial now; `values` are its objective values, else its evaluations decide."""
        self._finish("complete", values=[float(values)] if isinstance(values, int | float) else values)

    def _finish(
        self, state: events.TrialState, *, values: list[float] | None = None, error: str | None = None
    ) -> None:
        if not self._finished:
            self._finished = True
            self._channel.publish(
                events.TrialFinished(
                    study=self.study, trial=self.number, attempt=self.attempt, state=state, values=values, error=error
                )
            )


def attach(
    study: str | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    budget: int | None = None,
    endpoint: str | None = None,
    timeout_s: float | None = None,
) -> Trial:
    """Return the trial this process is to run.

    In a process that a worker started, it is the worker's trial. Elsewhere, with `study`, the
    optimizer is asked for one. Without either it is a stand-alone trial: `defaults` are its
    parameters and its reports are printed, so that the same script runs by hand.

    Args:
        study: Ask for a trial of this study, unless a worker has given one.
        defaults: Parameters of a stand-alone trial, and of any the study does not search.
        budget: Steps to train where the study does not say.
        endpoint: Where the hub is; None takes `$TRIALBUS_ENDPOINT` or the default.
        timeout_s: Seconds to wait for a trial that was asked for; None waits for ever.

    Raises:
        SpecError: `$TRIALBUS_TRIAL` is malformed.
        HubUnavailableError: No hub, or no trial, within `timeout_s`.

    Example:
        >>> with attach(defaults={"lr": 1e-3}, budget=20) as trial:  # doctest: +SKIP
        ...     trial.report(0, {"loss": train(trial.params["lr"])})
    """
    given = os.environ.get(TRIAL_VARIABLE)
    if given:
        try:
            assignment = msgspec.json.decode(given, type=Assignment)
        except msgspec.DecodeError as error:
            raise SpecError(f"${TRIAL_VARIABLE}", f"{given!r} is not a trial: {error}") from None
        link = Link(endpoint)
        presence = Presence(
            link=link,
            kind="trainer",
            ttl_s=_TTL_S,
            study=assignment.study,
            trial=assignment.trial,
            attempt=assignment.attempt,
            info={"host": socket.gethostname(), "pid": str(os.getpid())},
        )
    elif study is not None:
        link, presence, assignment = _ask(study, endpoint, timeout_s)
    else:
        seed = random.SystemRandom().randrange(2**31)
        _say(f"stand-alone (no ${TRIAL_VARIABLE} and no study given): default params, reports are printed")
        return Trial(Assignment(study="", trial=0, params=dict(defaults or {}), seed=seed), _Printer(), budget)
    merged = msgspec.structs.replace(assignment, params={**(defaults or {}), **assignment.params})
    _say(f"trial {merged.trial} of study {merged.study!r}, attempt {merged.attempt}, hub {link.endpoint}")
    return Trial(merged, _Bus(link, presence, merged), budget)


class _Bus:
    """A trial's channel over a link: outbox, prune command and presence share its thread."""

    def __init__(self, link: Link, presence: Presence, assignment: Assignment) -> None:
        self._link = link
        self._presence = presence
        # Attached before the publisher, so that it stands in the log before the first report.
        self._prunes = subscribe(events.Prune, study=assignment.study, trial=assignment.trial, link=link)
        self._publisher = Publisher(link=link)

    def publish(self, event: events.Event) -> None:
        self._publisher.publish(event)

    def pruned(self, attempt: int, wait_s: float) -> events.Prune | None:
        if not (self._prunes.available or wait_s > 0):
            return None
        event = self._prunes.next(wait_s)
        return event if isinstance(event, events.Prune) and event.attempt == attempt else None

    def close(self) -> None:
        self._publisher.close(_FLUSH_S)
        self._presence.close()
        self._link.close()


class _Printer:
    """The channel of a stand-alone trial."""

    def publish(self, event: events.Event) -> None:
        match event:
            case events.EvaluationComplete():
                shown = "  ".join(f"{name} {value:.5g}" for name, value in event.metrics.items())
                _say(f"step {event.step}  {shown}  ({event.elapsed_s:.1f} s)")
            case events.TrialFinished():
                _say(event.state)
            case _:
                return

    def pruned(self, attempt: int, wait_s: float) -> None:
        return None

    def close(self) -> None:
        return


def _ask(study: str, endpoint: str | None, timeout_s: float | None) -> tuple[Link, Presence, Assignment]:
    link = Link(endpoint)
    presence = Presence(link=link, kind="trainer", ttl_s=_TTL_S, study=study, info={"host": socket.gethostname()})
    request = uuid.uuid4().hex
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        with subscribe(events.TrialAssigned, study=study, link=link) as answers, Publisher(link=link) as publisher:
            answers.wait_ready(10.0 if timeout_s is None else timeout_s)
            publisher.publish(
                events.TrialRequested(study=study, request=request, session=presence.session, worker=socket.gethostname())
            )
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                match answers.next(left):
                    case None:
                        raise HubUnavailableError(link.endpoint, timeout_s or 0.0)
                    case events.TrialAssigned(request=answered) as event if answered == request:
                        presence.assign(study, event.trial, event.attempt)
                        return link, presence, _assignment(event)
                    case _:
                        continue
    except BaseException:
        presence.close()
        link.close()
        raise


def _assignment(event: events.TrialAssigned) -> Assignment:
    return Assignment(
        study=event.study,
        trial=event.trial,
        attempt=event.attempt,
        params=event.params,
        seed=event.seed,
        budget=event.budget,
    )


def environment(event: events.TrialAssigned, endpoint: str) -> dict[str, str]:
    """Return the environment variables that make `attach` in another process return this trial."""
    return {
        ENDPOINT_VARIABLE: endpoint,
        TRIAL_VARIABLE: msgspec.json.encode(_assignment(event)).decode(),
    }


def _say(line: str) -> None:
    print(f"trialbus: {line}", file=sys.stderr, flush=True)  # noqa: T201 - a script without logging set up
