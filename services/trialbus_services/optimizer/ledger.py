"""Ledger: what the log says about studies, requests and trials.

A pure fold over events: the same events always give the same ledger, so after a crash reading
the log again is all the recovery there is. It decides nothing that the log does not say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trialbus.messages import events
from trialbus.study.spec import StudySpec


@dataclass
class OpenTrial:
    """A trial that has been handed out and not finished.

    `waiting` is true between the loss of an attempt and the hand-out of the next one; nothing of
    the attempt is in the log before the offset `since`. `pruned_by` is the person who wants its
    end, and why: then there is no next one.
    """

    number: int
    attempt: int
    params: dict[str, Any]
    request: str
    session: str
    worker: str = ""
    slot: int = 0
    waiting: bool = False
    since: int = 0
    pruned_by: str = ""


@dataclass
class Book:
    """One study as the log tells it."""

    spec: StudySpec
    submission: str
    submitted_at: float
    origin: dict[str, Any] = field(default_factory=dict[str, Any])
    open: dict[int, OpenTrial] = field(default_factory=dict[int, OpenTrial])
    finished: bool = False
    stop: str | None = None
    paused: bool = False


@dataclass(frozen=True)
class Closed:
    """A trial ended, to be told to Optuna.

    Attributes:
        cause: `complete`, `pruned`, `failed`, or `lost` where its last attempt was lost.
    """

    study: str
    trial: OpenTrial
    cause: str
    values: list[float] | None = None
    error: str | None = None


class Ledger:
    """Studies by name, requests that wait for an answer, and which were answered."""

    def __init__(self) -> None:
        self.studies: dict[str, Book] = {}
        self.requests: dict[str, events.TrialRequested] = {}
        self._answered: set[str] = set()
        self._offset = 0
        self._apply: dict[type, Callable[[Any], list[Closed]]] = {
            events.StudySubmitted: self._study_submitted,
            events.StudyFinished: self._study_finished,
            events.Stop: self._stop,
            events.Pause: self._pause,
            events.Resume: self._resume,
            events.Prune: self._prune,
            events.TrialRequested: self._trial_requested,
            events.RequestWithdrawn: self._request_withdrawn,
            events.TrialAssigned: self._trial_assigned,
            events.TrialFinished: self._trial_finished,
            events.TrainerLost: self._trainer_lost,
        }

    #: The events a ledger is made of.
    TYPES: tuple[type[events.Event], ...] = (
        events.StudySubmitted,
        events.StudyFinished,
        events.Stop,
        events.Pause,
        events.Resume,
        events.Prune,
        events.TrialRequested,
        events.RequestWithdrawn,
        events.TrialAssigned,
        events.TrialFinished,
        events.TrainerLost,
    )

    def apply(self, event: events.AnyEvent, offset: int = 0) -> list[Closed]:
        """Take in one event, that lies at an offset of the log, and return the trials it closed.

        An event seen before changes nothing.
        """
        self._offset = offset
        apply = self._apply.get(type(event))
        return apply(event) if apply else []

    def current(self, event: events.TrialEvent) -> OpenTrial | None:
        """Return the open trial that an event is about, unless its attempt was given up."""
        book = self.studies.get(event.study)
        trial = book.open.get(event.trial) if book else None
        if trial is None or trial.waiting or trial.attempt != event.attempt:
            return None
        return trial

    def _study_submitted(self, event: events.StudySubmitted) -> list[Closed]:
        old = self.studies.get(event.study)
        book = Book(
            event.spec,
            event.submission,
            event.at,
            origin=event.origin,
            open=old.open if old else {},
        )
        self.studies[event.study] = book
        return []

    def _study_finished(self, event: events.StudyFinished) -> list[Closed]:
        book = self.studies.get(event.study)
        if book and book.submission == event.submission:
            book.finished = True
        return []

    def _stop(self, event: events.Stop) -> list[Closed]:
        book = self.studies.get(event.study)
        if book and not book.finished:
            book.stop = event.reason or "stopped"
        return []

    def _pause(self, event: events.Pause) -> list[Closed]:
        book = self.studies.get(event.study)
        if book:
            book.paused = True
        return []

    def _resume(self, event: events.Resume) -> list[Closed]:
        book = self.studies.get(event.study)
        if book:
            book.paused = False
        return []

    def _prune(self, event: events.Prune) -> list[Closed]:
        book = self.studies.get(event.study)
        trial = book.open.get(event.trial) if book else None
        if book and trial and event.by and trial.attempt == event.attempt:
            trial.pruned_by = f"{event.by}: {event.reason}" if event.reason else event.by
            return self._give_back(book, trial) if trial.waiting else []
        return []

    def _give_back(self, book: Book, trial: OpenTrial) -> list[Closed]:
        """Let a trial wait for its next attempt, unless somebody wanted it to end."""
        if not trial.pruned_by:
            trial.waiting = True
            return []
        del book.open[trial.number]
        return [Closed(book.spec.name, trial, "pruned")]

    def _trial_requested(self, event: events.TrialRequested) -> list[Closed]:
        if event.request not in self._answered:
            self.requests.setdefault(event.request, event)
        return []

    def _request_withdrawn(self, event: events.RequestWithdrawn) -> list[Closed]:
        self._answered.add(event.request)
        self.requests.pop(event.request, None)
        return [
            closed
            for book in self.studies.values()
            for trial in list(book.open.values())
            if trial.request == event.request
            for closed in self._give_back(book, trial)
        ]

    def _trial_assigned(self, event: events.TrialAssigned) -> list[Closed]:
        if event.request in self._answered:
            return []
        self._answered.add(event.request)
        self.requests.pop(event.request, None)
        book = self.studies.get(event.study)
        if book:
            book.open[event.trial] = OpenTrial(
                number=event.trial,
                attempt=event.attempt,
                params=event.params,
                request=event.request,
                session=event.session,
                worker=event.worker,
                slot=event.slot,
                since=self._offset,
            )
        return []

    def _trial_finished(self, event: events.TrialFinished) -> list[Closed]:
        trial = self.current(event)
        if trial is None:
            return []
        if event.state == "preempted":
            return self._give_back(self.studies[event.study], trial)
        del self.studies[event.study].open[event.trial]
        return [Closed(event.study, trial, event.state, event.values, event.error)]

    def _trainer_lost(self, event: events.TrainerLost) -> list[Closed]:
        self.requests = {id_: r for id_, r in self.requests.items() if r.session != event.session}
        closed: list[Closed] = []
        for name, book in self.studies.items():
            for trial in list(book.open.values()):
                same_attempt = (name, trial.number, trial.attempt) == (
                    event.study,
                    event.trial,
                    event.attempt,
                )
                if trial.waiting or not (trial.session == event.session or same_attempt):
                    continue
                if trial.pruned_by or trial.attempt < book.spec.max_retries:
                    closed += self._give_back(book, trial)
                else:
                    del book.open[trial.number]
                    retries = book.spec.max_retries
                    error = f"lost {trial.attempt + 1} times (study.max_retries={retries})"
                    closed.append(Closed(name, trial, "lost", error=error))
        return closed
