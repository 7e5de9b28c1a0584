"""Ledger: studies, trials and waiting requests, folded from the events of the log.

A pure fold over events: the same events always give the same ledger, so that a restarted optimizer
recovers by reading the log again. The ledger decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trialbus.messages import events
from trialbus.messages.hand_outs import HandOuts
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.trial_states import AttemptEnd, TrialStates


@dataclass
class StudyState:
    """The state of a study, folded from the events of the log; only the ledger changes a state."""

    spec: StudySpec
    submission: str
    """Id of the newest submission."""
    trials: TrialStates
    origin: dict[str, Any] = field(default_factory=dict[str, Any])
    """Origin of the study, as `StudySubmitted.origin` has it."""
    end: events.StudyFinished | None = None
    """The end of that submission; None while the study runs."""
    started: events.StudyStarted | None = None
    """The event that declared this submission started; None before."""
    began_at: float | None = None
    """Time, by the optimizer's clock, of the first trial that this submission handed out."""
    stop_reason: str | None = None
    """Reason of the `stop` command; None without one."""
    is_paused: bool = False
    offset: int = 0
    """Offset of that submission."""

    @property
    def is_finished(self) -> bool:
        """Whether the newest submission has ended."""
        return self.end is not None


class Ledger:
    """Studies by name, and requests that wait for an answer."""

    TYPES: ClassVar[tuple[type[events.Event], ...]] = (
        events.StudySubmitted,
        events.StudyStarted,
        events.StudyFinished,
        events.Stop,
        events.Pause,
        events.Resume,
        events.Prune,
        events.TrialRequested,
        events.RequestWithdrawn,
        events.RequestRefused,
        events.TrialAssigned,
        events.TrialFinished,
        events.TrialClosed,
        events.TrainerLost,
    )
    """Types of the events that change a ledger."""

    def __init__(self) -> None:
        self.studies: dict[str, StudyState] = {}
        self.requests: dict[str, events.TrialRequested] = {}
        #: Requests with an answer that the log does not have yet, and that answer.
        self._decided: dict[str, tuple[events.TrialRequested, events.TrialAssigned]] = {}
        self._hand_outs = HandOuts()
        self._withdrawn: set[str] = set()  # or refused
        self._lost: set[str] = set()
        self._offset = 0
        self._among: Collection[str] = ()
        self._apply: dict[type, Callable[[Any], Iterable[AttemptEnd]]] = {
            events.StudySubmitted: self._submit_study,
            events.StudyStarted: self._start_study,
            events.StudyFinished: self._finish_study,
            events.Stop: self._stop_study,
            events.Pause: self._pause_study,
            events.Resume: self._resume_study,
            events.Prune: self._prune_trial,
            events.TrialRequested: self._add_request,
            events.RequestWithdrawn: self._withdraw_request,
            events.RequestRefused: self._withdraw_request,
            events.TrialAssigned: self._assign_trial,
            events.TrialFinished: self._finish_attempt,
            events.TrialClosed: self._close_trial,
            events.TrainerLost: self._lose_session,
        }

    def apply(
        self, event: events.AnyEvent, offset: int = 0, studies: Collection[str] | None = None
    ) -> list[AttemptEnd]:
        """Apply an event that lies at an offset of the log, and return the ends of attempts.

        An event that was applied before changes nothing.

        Args:
            event: The event.
            offset: Offset of the event.
            studies: Names of the studies to which an event about every study is applied; None for
                all. The others get the event later, and nothing that follows it before.
        """
        apply = self._apply.get(type(event))
        if apply is None:
            return []
        self._offset = offset
        self._among = self.studies if studies is None else studies
        ends = list(apply(event))
        for end in ends:
            end.trial.until = offset
        return ends

    def decide(self, event: events.TrialAssigned, offset: int) -> None:
        """Apply an assignment that is decided and not in the log yet, where another may precede it.

        Args:
            event: The assignment, which answers a request that waits.
            offset: Offset of the log at which the decision was made.
        """
        self._decided[event.request] = self.requests.pop(event.request), event
        self.studies[event.study].trials.decide(event, offset)

    def retract(self, event: events.TrialAssigned, request: events.TrialRequested) -> None:
        """Retract an assignment that was decided and not published: its request waits again."""
        self.studies[event.study].trials.discard(event.trial)
        self._decided.pop(event.request, None)
        self._add_request(request)

    def find_refused(self) -> list[events.RequestRefused]:
        """Return the answers to the requests that end with a study which has ended."""
        return [
            events.RequestRefused(
                study=request.study,
                request=request.request,
                session=request.session,
                reason=state.end.reason,
                error=state.end.error,
            )
            for request in self.requests.values()
            if request.ends_with_study
            and (state := self.studies.get(request.study)) is not None
            and state.end is not None
        ]

    def list_requesters(self) -> dict[str, set[str]]:
        """Return the sessions that wait for a trial or have an open trial, and their studies."""
        requesters: dict[str, set[str]] = {}
        for request in self.requests.values():
            requesters.setdefault(request.session, set()).add(request.study)
        for name, state in self.studies.items():
            for trial in state.trials.open.values():
                if not trial.is_waiting:
                    requesters.setdefault(trial.session, set()).add(name)
        requesters.pop("", None)  # of an assignment that nobody requested
        return requesters

    def _submit_study(self, event: events.StudySubmitted) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        if state:
            trials = state.trials
        else:
            trials = TrialStates(event.study, self._hand_outs, self._withdrawn, self._lost)
            trials.begin = self._offset
        trials.spec = event.spec
        self.studies[event.study] = StudyState(
            event.spec, event.submission, trials, origin=event.origin, offset=self._offset
        )
        return ()

    def _start_study(self, event: events.StudyStarted) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        if state and state.submission == event.submission and state.started is None:
            state.started = event
            state.trials.note_start(event, state.offset)
        return ()

    def _finish_study(self, event: events.StudyFinished) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        if state and state.submission == event.submission:
            state.end = event
        return ()

    def _stop_study(self, event: events.Stop) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        if state and not state.is_finished:
            state.stop_reason = event.reason or "stopped"
        return ()

    def _pause_study(self, event: events.Pause) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        if state:
            state.is_paused = True
        return ()

    def _resume_study(self, event: events.Resume) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        if state:
            state.is_paused = False
        return ()

    def _prune_trial(self, event: events.Prune) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        return state.trials.prune(event) if state else ()

    def _add_request(self, event: events.TrialRequested) -> Iterable[AttemptEnd]:
        is_over = (
            event.request in self._withdrawn
            or event.request in self._decided
            or self._hand_outs.is_answered(event.request)
            or event.session in self._lost
        )
        if not is_over:
            self.requests.setdefault(event.request, event)
        return ()

    def _withdraw_request(
        self, event: events.RequestWithdrawn | events.RequestRefused
    ) -> Iterable[AttemptEnd]:
        self._withdrawn.add(event.request)
        self._decided.pop(event.request, None)
        self.requests.pop(event.request, None)
        return [end for name in self._among for end in self._trials(name).withdraw(event.request)]

    def _assign_trial(self, event: events.TrialAssigned) -> Iterable[AttemptEnd]:
        is_void = self._hand_outs.is_void(event)
        ends = self._compare_decision(event, is_void=is_void)
        if is_void:
            return ends
        self.requests.pop(event.request, None)
        if state := self.studies.get(event.study):
            state.trials.assign(event, self._offset)
            state.began_at = event.at if state.began_at is None else state.began_at
        else:
            self._hand_outs.add(event)
        return ends

    def _compare_decision(
        self, event: events.TrialAssigned, *, is_void: bool
    ) -> Iterable[AttemptEnd]:
        """Take back what was decided for a request if the log has an answer that goes before."""
        if event.request not in self._decided:
            return ()
        request, decided = self._decided[event.request]
        is_decided = _identify(event) == _identify(decided)
        if is_void and not is_decided:
            return ()
        del self._decided[event.request]
        if is_void:  # the requester reads the log in the same order, and still waits
            self._add_request(request)
        elif is_decided:
            return ()
        return self.studies[decided.study].trials.take_back(decided)

    def _finish_attempt(self, event: events.TrialFinished) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        return state.trials.finish(event) if state else ()

    def _close_trial(self, event: events.TrialClosed) -> Iterable[AttemptEnd]:
        state = self.studies.get(event.study)
        if state:
            state.trials.close(event)
        return ()

    def _lose_session(self, event: events.TrainerLost) -> Iterable[AttemptEnd]:
        self._lost.add(event.session)  # for good: a late request gets no trial
        self.requests = {id_: r for id_, r in self.requests.items() if r.session != event.session}
        return [end for name in self._among for end in self._trials(name).lose(event)]

    def _trials(self, study: str) -> TrialStates:
        return self.studies[study].trials


def _identify(event: events.TrialAssigned) -> tuple[str, int, int]:
    return event.study, event.trial, event.attempt
