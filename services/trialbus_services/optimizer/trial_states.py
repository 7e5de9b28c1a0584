"""TrialStates: the state of each trial of a study, folded from the events of the log.

No other module folds the state of a trial: the optimizer's ledger and every view use this one. A
trial is open while an attempt runs, waits between an attempt that is to be followed by another and
that attempt, and is closed with a state. No I/O and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from trialbus.messages import events
from trialbus.messages.hand_outs import HandOuts
from trialbus.study.retries import FailureCause, find_limit
from trialbus.study.spec import StudySpec

EndState: TypeAlias = Literal["complete", "pruned", "failed", "waiting"]
"""How an attempt ended: with `waiting` the trial is handed out again, else it is closed."""


@dataclass(frozen=True)
class AttemptSpan:
    """The part of the log in which an attempt that was given up ran."""

    attempt: int
    since: int
    """Offset of the assignment."""
    until: int
    """Offset of the event that ended the attempt."""


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
    until: int | None = field(default=None, compare=False)
    """Offset of the event that ended the attempt; None while the attempt runs."""
    assigned_at: float | None = field(default=None, compare=False)
    """Time of the assignment, by the optimizer's clock; None once the attempt has ended."""
    ran_s: float = field(default=0.0, compare=False)
    """Seconds that the attempts ran that have ended, each from its assignment to its end."""
    earlier: list[AttemptSpan] = field(default_factory=list["AttemptSpan"], compare=False)
    """Attempts that were given up, oldest first."""
    pruned_by: str = ""
    """Person who pruned the trial, and the reason; such a trial is not handed out again."""
    prune_reason: str = ""
    """Reason of the newest `prune` of the attempt, with the person who sent it."""
    causes: list[FailureCause] = field(default_factory=list[FailureCause])
    """Why the attempts ended so far, the oldest first; without attempts that never ran."""
    n_idle: int = 0
    """Attempts in a row, before this one, that ended without a new step."""
    last_step: int = -1
    """Highest step that an attempt has reported; -1 before the first."""
    has_new_step: bool = False
    """Whether this attempt reported a step that no earlier attempt reported."""
    was_run: bool = True
    """Whether a training may have run; not if the request was withdrawn or its session lost."""

    def add_step(self, step: int) -> None:
        """Add a step that the attempt reported."""
        if step > self.last_step:
            self.last_step, self.has_new_step = step, True

    def add_run(self, ended_at: float) -> None:
        """Add the time from the assignment to the end of the attempt to the time of the trial."""
        if self.assigned_at is not None:
            self.ran_s += max(0.0, ended_at - self.assigned_at)
            self.assigned_at = None

    def count_idle(self) -> int:
        """Return the number of attempts in a row, up to this one, without a new step."""
        return 0 if self.has_new_step else self.n_idle + self.was_run

    @property
    def first_since(self) -> int:
        """Offset of the first assignment that was seen of the trial."""
        return self.earlier[0].since if self.earlier else self.since

    def was_running(self, attempt: int, offset: int) -> bool:
        """Return whether an attempt ran when the event at an offset was read."""
        if attempt == self.attempt:
            return self.until is None or offset < self.until
        return any(
            span.attempt == attempt and span.since <= offset < span.until for span in self.earlier
        )


@dataclass(frozen=True)
class AttemptEnd:
    """The end of an attempt, and whether the end closes the trial."""

    study: str
    trial: OpenTrial
    state: EndState
    cause: FailureCause | None = None
    """Why a failed attempt, or an attempt that is followed by another, ended."""
    values: list[float] | None = None
    """Objective values, where the trainer gave them."""
    error: str | None = None
    constraints: dict[str, float] = field(default_factory=dict[str, float])
    """Violations that the training measured, by constraint."""

    @property
    def is_closed(self) -> bool:
        """Whether the trial is closed; else the trial waits for the next attempt."""
        return self.state != "waiting"


class TrialStates:
    """The open trials of a study, by number.

    An event that was applied before, or is about an attempt that was given up, changes nothing.

    Args:
        study: Name of the study.
        hand_outs: Assignments that count. The studies of a ledger share them, since a request may
            be for any study.
        withdrawn: Ids of the requests that were withdrawn or refused before.
        lost: Ids of the sessions that were lost before.
    """

    def __init__(
        self,
        study: str,
        hand_outs: HandOuts | None = None,
        withdrawn: Iterable[str] = (),
        lost: Iterable[str] = (),
    ) -> None:
        self.study = study
        self.open: dict[int, OpenTrial] = {}
        #: Specification; before it was seen, any number of attempts may be lost or killed.
        self.spec: StudySpec | None = None
        self._hand_outs = HandOuts() if hand_outs is None else hand_outs
        # Not shared: a study that waits for the storage is behind the others.
        self._withdrawn = set(withdrawn)
        self._lost = set(lost)
        #: Numbers of the trials that were handed out since the study began, or began anew.
        self.handed_out: set[int] = set()
        #: Offset of the submission with which the study began.
        self.begin = 0
        #: Lowest attempt of each trial that may still run.
        self._next_attempts: dict[int, int] = {}

    def note_start(self, event: events.StudyStarted, submitted: int) -> None:
        """Note the start of a submission, with which a study that was deleted begins anew.

        Args:
            event: The start.
            submitted: Offset of the submission.
        """
        if event.n_done < len(self.handed_out - self.open.keys()):
            self.handed_out.clear()
            self.begin = submitted

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

    def find_next_attempt(self, number: int) -> int:
        """Return the lowest attempt of a trial that was not handed out."""
        in_log = self._hand_outs.find_next_attempt(self.study, number)
        return max(in_log, self._next_attempts.get(number, 0))

    def decide(self, event: events.TrialAssigned, offset: int) -> None:
        """Open an attempt before the log has its assignment."""
        self._open_assigned(event, offset)

    def take_back(self, decided: events.TrialAssigned) -> list[AttemptEnd]:
        """Let the trial wait of a decided assignment that turned out void: nobody runs it."""
        trial = self.find_running(decided)
        if trial is None or trial.request != decided.request:
            return []
        trial.was_run = False
        return [self._let_wait(trial)]

    def assign(self, event: events.TrialAssigned, offset: int = 0) -> OpenTrial | None:
        """Open an attempt that the log hands out.

        Returns:
            None if the request was answered before, or withdrawn, or if the assignment is void.
        """
        was_answered = self._hand_outs.is_answered(event.request)
        if not self._hand_outs.add(event) or was_answered or event.request in self._withdrawn:
            return None
        if event.attempt < self._next_attempts.get(event.trial, 0):
            return None  # this optimizer has decided on a later attempt, which the log will have
        trial = self.open.get(event.trial)
        if (
            trial
            and event.request
            and (trial.attempt, trial.request)
            == (
                event.attempt,
                event.request,
            )
        ):
            return trial  # opened when it was decided
        return self._open_assigned(event, offset)

    def _open_assigned(self, event: events.TrialAssigned, offset: int) -> OpenTrial:
        before = self.open.get(event.trial)
        self.handed_out.add(event.trial)
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
                assigned_at=event.at,
                ran_s=before.ran_s if before is not None else 0.0,
                causes=before.causes if before is not None else [],
                n_idle=event.n_idle,
                last_step=-1 if event.last_step is None else event.last_step,
                earlier=self._list_spans(event.trial, offset),
            )
        )
        if event.session in self._lost:  # the assignment was on the way when the session was lost
            trial.was_run = False
            self._let_wait(trial)
            trial.until = offset
        return trial

    def prune(self, event: events.Prune) -> list[AttemptEnd]:
        """Keep the reason to prune a trial; close a trial that waits and that a person pruned."""
        trial = self.open.get(event.trial)
        if trial is None or trial.attempt != event.attempt:
            return []
        reasons = [text for text in (event.by, event.reason) if text]
        trial.prune_reason = ": ".join(reasons)
        if not event.by:
            return []
        trial.pruned_by = trial.prune_reason
        return [self._let_wait(trial)] if trial.is_waiting else []

    def finish(self, event: events.TrialFinished) -> list[AttemptEnd]:
        """End an attempt: close the trial, or let the trial wait if the cause may be retried."""
        trial = self.find_running(event)
        if trial is None:
            return []
        trial.add_run(event.at)
        if event.state in ("complete", "pruned"):
            end = self._close(trial, event.state, values=event.values, error=event.error)
            return [replace(end, constraints=event.constraints)]
        return [self._fail(trial, find_cause(event), event.error)]

    def close(self, event: events.TrialClosed) -> None:
        """Close a trial whose end the optimizer has recorded."""
        trial = self.open.get(event.trial)
        if trial is not None and trial.attempt <= event.attempt:
            del self.open[event.trial]
            self._next_attempts[event.trial] = event.attempt + 1

    def give_up(self, end: AttemptEnd) -> AttemptEnd:
        """Return the end of an attempt, which closes a trial that is given back again and again.

        Only who has seen every step of the attempt can tell whether a step was new.
        """
        if end.state != "waiting" or end.cause != "preempted":
            return end
        n_idle = end.trial.count_idle()
        limit, key = self._find_limit("preempted")
        if n_idle <= limit:
            return end
        error = f"given back {n_idle} times in a row without a new step ({key})"
        return self._close(end.trial, "failed", "preempted", error=error)

    def withdraw(self, request: str) -> list[AttemptEnd]:
        """Let the trial that was handed out for a request wait."""
        self._withdrawn.add(request)
        ends: list[AttemptEnd] = []
        for trial in list(self.open.values()):
            if trial.request == request and not trial.is_waiting:
                trial.was_run = False
                ends.append(self._let_wait(trial))
        return ends

    def lose(self, event: events.TrainerLost) -> list[AttemptEnd]:
        """Let the trials of a lost session wait; close a trial that was lost too often."""
        self._lost.add(event.session)
        lost = [
            trial
            for trial in self.open.values()
            if not trial.is_waiting and self._is_lost(trial, event)
        ]
        for trial in lost:
            trial.add_run(event.last_seen or event.at)
        return [self._fail(trial, "lost", None) for trial in lost]

    def discard(self, number: int) -> None:
        """Discard an open trial that the storage does not have, or has as finished."""
        self.open.pop(number, None)

    def _list_spans(self, number: int, offset: int) -> list[AttemptSpan]:
        """Return the attempts of a trial before the attempt that is handed out at an offset."""
        trial = self.open.get(number)
        if trial is None:
            return []
        until = offset if trial.until is None else trial.until
        return [*trial.earlier, AttemptSpan(trial.attempt, trial.since, until)]

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

    def _fail(self, trial: OpenTrial, cause: FailureCause, error: str | None) -> AttemptEnd:
        """End an attempt for a cause: let the trial wait, or close a trial that ended so too often.

        A preempted trial always waits here, see `give_up`.
        """
        trial.causes.append(cause)
        n_ended = trial.causes.count(cause)
        limit, key = self._find_limit(cause)
        if cause == "preempted" or n_ended <= limit:
            return self._let_wait(trial, cause, error)
        if cause == "lost":
            error = f"lost {n_ended} times ({key})"
        elif limit:
            error = f"{error or cause} ({n_ended} times, {key})"
        return self._close(trial, "failed", cause, error=error)

    def _find_limit(self, cause: FailureCause) -> tuple[float, str]:
        if self.spec is not None:
            return find_limit(cause, self.spec.retries, self.spec.max_retries)
        limit, key = find_limit(cause, {}, 0)
        return (math.inf if cause in ("lost", "killed") else limit), key

    def _let_wait(
        self, trial: OpenTrial, cause: FailureCause | None = None, error: str | None = None
    ) -> AttemptEnd:
        """Let a trial wait for the next attempt; close a trial that a person pruned."""
        if trial.pruned_by:
            return self._close(trial, "pruned", cause)
        trial.is_waiting = True
        self._next_attempts[trial.number] = trial.attempt + 1
        return AttemptEnd(self.study, trial, "waiting", cause, error=error)

    def _close(
        self,
        trial: OpenTrial,
        state: EndState,
        cause: FailureCause | None = None,
        *,
        values: list[float] | None = None,
        error: str | None = None,
    ) -> AttemptEnd:
        del self.open[trial.number]
        self._next_attempts[trial.number] = trial.attempt + 1
        return AttemptEnd(self.study, trial, state, cause, values, error)


def find_cause(event: events.TrialFinished) -> FailureCause:
    """Return why an attempt ended, for a `trial_finished` of an earlier version, too."""
    if event.cause is not None:
        return event.cause
    if event.state == "preempted":
        return "preempted"
    return "killed" if event.exit_code is not None and event.exit_code < 0 else "exception"
