"""TrialStates: the state of each trial of a study, folded from the events of the log.

No other module folds the state of a trial: the optimizer's ledger and every view use this one. A
trial is open while an attempt runs, waits between an attempt that ended without a verdict and the
next attempt, and is closed with a cause. No I/O and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from trialbus.messages import events

Cause: TypeAlias = Literal["complete", "pruned", "failed", "lost", "waiting"]
"""How an attempt ended: with `waiting` the trial is handed out again, else it is closed.

`lost` closes a trial whose last attempt was lost; its optimizer records it as failed.
"""


@dataclass
class OpenTrial:
    """A trial that was handed out and is not closed.

    Only number and attempt are known if the assignment was not seen.
    """

    number: int
    attempt: int
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    request: str = ""
    """Id of the request that the attempt answers."""
    session: str = ""
    """Presence session of the requester."""
    worker: str = ""
    slot: int = 0
    is_waiting: bool = False
    """Whether the attempt has ended and the next attempt was not handed out yet."""
    since: int = 0
    """Offset of the assignment: every event of the attempt lies behind it."""
    pruned_by: str = ""
    """Person who pruned the trial, and the reason; such a trial is not handed out again."""


@dataclass(frozen=True)
class AttemptEnd:
    """The end of an attempt, and whether the end closes the trial."""

    study: str
    trial: OpenTrial
    cause: Cause
    values: list[float] | None = None
    """Objective values, where the trainer gave them."""
    error: str | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the trial is closed; else the trial waits for the next attempt."""
        return self.cause != "waiting"


class TrialStates:
    """The open trials of a study, by number.

    An event that was applied before, or is about an attempt that was given up, changes nothing.

    Args:
        study: Name of the study.
        answered: Ids of the requests that have an answer or were withdrawn. The studies of a
            ledger share the set, since a request may be for any study.
        lost: Ids of the sessions that were lost. The studies of a ledger share this set, too.
    """

    def __init__(
        self, study: str, answered: set[str] | None = None, lost: set[str] | None = None
    ) -> None:
        self.study = study
        self.open: dict[int, OpenTrial] = {}
        #: `study.max_retries`; None, for no limit, while the specification was not seen.
        self.max_retries: int | None = None
        self._answered: set[str] = set() if answered is None else answered
        self._lost: set[str] = set() if lost is None else lost
        #: Lowest attempt of each trial that may still run.
        self._next_attempts: dict[int, int] = {}

    def find_running(self, event: events.TrialEvent) -> OpenTrial | None:
        """Return the trial of an event about a running attempt; None if the attempt is over."""
        trial = self.open.get(event.trial)
        if trial is None or trial.is_waiting or trial.attempt != event.attempt:
            return None
        return trial

    def find_or_open(self, event: events.TrialEvent) -> OpenTrial | None:
        """Return the trial of an event about a running attempt; open an attempt not seen before.

        For views, which may join after the assignment was published.
        """
        trial = self.find_running(event)
        if trial is None and event.attempt >= self._next_attempts.get(event.trial, 0):
            trial = self._open(OpenTrial(event.trial, event.attempt))
        return trial

    def assign(self, event: events.TrialAssigned, offset: int = 0) -> OpenTrial | None:
        """Open an attempt; return None if the request was answered before, or withdrawn."""
        if event.request in self._answered:
            return None
        self._answered.add(event.request)
        trial = self._open(
            OpenTrial(
                number=event.trial,
                attempt=event.attempt,
                params={**event.params, **event.labels},
                request=event.request,
                session=event.session,
                worker=event.worker,
                slot=event.slot,
                since=offset,
            )
        )
        if event.session in self._lost:  # the assignment was on the way when the session was lost
            self._let_wait(trial)
        return trial

    def prune(self, event: events.Prune) -> list[AttemptEnd]:
        """Mark a trial as pruned by a person, and close a marked trial that waits."""
        trial = self.open.get(event.trial)
        if trial is None or not event.by or trial.attempt != event.attempt:
            return []
        trial.pruned_by = f"{event.by}: {event.reason}" if event.reason else event.by
        return [self._let_wait(trial)] if trial.is_waiting else []

    def finish(self, event: events.TrialFinished) -> list[AttemptEnd]:
        """End an attempt and close the trial; let a preempted trial wait."""
        trial = self.find_running(event)
        if trial is None:
            return []
        if event.state == "preempted":
            return [self._let_wait(trial, event.error)]
        return [self._close(trial, event.state, event.values, event.error)]

    def withdraw(self, request: str) -> list[AttemptEnd]:
        """Let the trial that was handed out for a request wait."""
        self._answered.add(request)
        return [
            self._let_wait(trial)
            for trial in list(self.open.values())
            if trial.request == request and not trial.is_waiting
        ]

    def lose(self, event: events.TrainerLost) -> list[AttemptEnd]:
        """Let the trials of a lost session wait; close a trial that was lost too often."""
        self._lost.add(event.session)
        return [
            self._lose(trial)
            for trial in list(self.open.values())
            if not trial.is_waiting and self._is_lost(trial, event)
        ]

    def discard(self, number: int) -> None:
        """Discard an open trial that the storage does not have, or has as finished."""
        self.open.pop(number, None)

    def _open(self, trial: OpenTrial) -> OpenTrial:
        self._next_attempts[trial.number] = trial.attempt
        self.open[trial.number] = trial
        return trial

    def _is_lost(self, trial: OpenTrial, event: events.TrainerLost) -> bool:
        if event.session == trial.session:
            return True
        return (self.study, trial.number, trial.attempt) == (
            event.study,
            event.trial,
            event.attempt,
        )

    def _lose(self, trial: OpenTrial) -> AttemptEnd:
        retries = self.max_retries
        if trial.pruned_by or retries is None or trial.attempt < retries:
            return self._let_wait(trial)
        error = f"lost {trial.attempt + 1} times (study.max_retries={retries})"
        return self._close(trial, "lost", error=error)

    def _let_wait(self, trial: OpenTrial, error: str | None = None) -> AttemptEnd:
        """Let a trial wait for the next attempt; close a trial that a person pruned."""
        if trial.pruned_by:
            return self._close(trial, "pruned")
        trial.is_waiting = True
        self._next_attempts[trial.number] = trial.attempt + 1
        return AttemptEnd(self.study, trial, "waiting", error=error)

    def _close(
        self,
        trial: OpenTrial,
        cause: Cause,
        values: list[float] | None = None,
        error: str | None = None,
    ) -> AttemptEnd:
        del self.open[trial.number]
        self._next_attempts[trial.number] = trial.attempt + 1
        return AttemptEnd(self.study, trial, cause, values, error)
