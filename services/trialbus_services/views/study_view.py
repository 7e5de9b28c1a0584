"""StudyView: the state of a running study, folded from the events of the log.

No I/O, and the clock is passed in, so that a terminal, a web page and a test can all use the view.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from trialbus.messages import events
from trialbus.study.spec import Direction, Objective, StudySpec
from trialbus_services.optimizer.objective import compute_objective
from trialbus_services.optimizer.trial_states import AttemptEnd, OpenTrial, TrialStates
from trialbus_services.views.formats import LIVE_DIGITS, format_value

_CURVE = 256  # newest values kept of a running trial
_NOTES = 1000  # newest notes kept while no reader takes them

NoteKind: TypeAlias = Literal["complete", "pruned", "failed", "interrupted", "lost", "resumed"]


@dataclass(frozen=True)
class Note:
    """Line of text about an event; the text may contain text of users."""

    kind: NoteKind
    text: str


@dataclass
class RunningTrial:
    """Attempt of a trial that runs.

    Without the assignment in the log, only number and attempt are known.
    """

    number: int
    attempt: int
    worker: str = ""
    slot: int = 0
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    budget: int | None = None
    step: int | None = None
    """Newest step; None before the first evaluation."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """Metrics of the newest step."""
    curve: dict[int, float] = field(default_factory=dict[int, float])
    """Newest values of the first objective's metric by step, without NaN."""
    best: float | None = None
    """Best value of the first objective's metric at any step."""
    pruned_at: int | None = None
    """Step at which the optimizer told the trial to stop; None before."""
    value: float | None = None
    """Objective value of the trial; None until the trial is complete."""


@dataclass(frozen=True)
class Best:
    """Best trial so far by the first objective."""

    value: float
    number: int
    params: dict[str, Any]


class StudyView:
    """The state of a study after the events applied so far.

    A view may join late, see events twice and meet unknown types. Until `study_finished`, a trial
    that did not send its values counts with the objective value of its newest evaluations; the
    counts and the best trial of `study_finished` replace those of the view.

    Args:
        study: Name of the study; other studies' events are ignored.
        clock: Seconds since the epoch.

    Example:
        >>> view = StudyView("digits")
        >>> view.apply(events.TrialStarted(study="digits", trial=3))
        >>> list(view.running)
        [3]
    """

    def __init__(self, study: str, clock: Callable[[], float] = time.time) -> None:
        self.study = study
        self.state: Literal["submitted", "running", "finished"] = "submitted"
        self.n_trials: int | None = None
        self.n_before = 0  #: trials finished before this submission
        self.n_events = 0
        self.n_lost = 0
        self.n_retried = 0
        self.paused = False
        self.metrics: list[str] = []
        self.directions: list[Direction] = []
        self.counts: Counter[str] = Counter()
        self.running: dict[int, RunningTrial] = {}
        self.finished: events.StudyFinished | None = None
        self._clock = clock
        self._began = self._run_began = clock()
        self._ended_at: float | None = None
        self._notes: deque[Note] = deque(maxlen=_NOTES)
        self._best_complete: Best | None = None
        self._spec: StudySpec | None = None
        self._submission: str | None = None  # the submission that runs
        self._ended_submissions: set[str] = set()
        self._states = TrialStates(study)
        #: Names of the metrics reported by the open trials that the view saw from the start.
        self._reported: dict[int, set[str]] = {}
        #: Trials of earlier runs in `counts`, until the optimizer starts this run.
        self._n_ended_earlier = 0

    @property
    def metric(self) -> str | None:
        """Metric of the first objective; None before the submission."""
        return self.metrics[0] if self.metrics else None

    @property
    def direction(self) -> Direction:
        """Direction of the first objective."""
        return self.directions[0] if self.directions else "maximize"

    @property
    def best(self) -> Best | None:
        """The best complete trial; without a complete trial, the best of the running trials."""
        if self._best_complete is not None:
            return self._best_complete
        best: Best | None = None
        for trial in self.running.values():
            if trial.best is not None and (best is None or self._is_better(trial.best, best.value)):
                best = Best(trial.best, trial.number, trial.params)
        return best

    @property
    def n_done(self) -> int:
        """Number of finished trials, with trials from before this submission."""
        return self.n_before + sum(self.counts.values())

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start of the view, or of a new run, until now or the run's end."""
        return (self._clock() if self._ended_at is None else self._ended_at) - self._began

    @property
    def left_s(self) -> float | None:
        """Estimate of the seconds until the end; None before a trial of this run has finished."""
        n_ended = sum(self.counts.values()) - self._n_ended_earlier
        if n_ended <= 0 or self.n_trials is None or self.state == "finished":
            return None
        seconds_per_trial = (self._clock() - self._run_began) / n_ended
        return seconds_per_trial * max(0, self.n_trials - self.n_done)

    def take_notes(self) -> list[Note]:
        """Return the notes since the last call, oldest first."""
        notes = list(self._notes)
        self._notes.clear()
        return notes

    def apply(self, event: events.AnyEvent) -> list[AttemptEnd]:
        """Apply an event and return the ends of attempts caused by the event.

        An event that was applied before changes only the count of events.
        """
        if isinstance(event, events.UnknownEvent):
            return []
        # The session of a worker that serves any study belongs to none of them.
        is_of_any_study = isinstance(event, events.TrainerLost | events.RequestWithdrawn)
        if event.study != self.study and not is_of_any_study:
            return []
        self.n_events += event.study == self.study
        match event:
            case events.StudySubmitted():
                self._apply_submitted(event)
            case events.StudyStarted():
                self._apply_started(event)
            case events.StudyFinished():
                self._apply_finished(event)
            case events.Pause() | events.Resume():
                self.paused = isinstance(event, events.Pause)
            case _:
                return self._apply_to_trials(event)
        return []

    def _apply_to_trials(self, event: events.Event) -> list[AttemptEnd]:
        match event:
            case events.TrainerLost():
                return self._end_attempts(self._states.lose(event), "lost")
            case events.RequestWithdrawn():
                return self._end_attempts(self._states.withdraw(event.request))
            case events.TrialFinished():
                self._states.find_or_open(event)
                return self._end_attempts(self._states.finish(event), "interrupted")
            case events.TrialEvent():
                return self._follow_trial(event)
            case _:
                return []

    def _follow_trial(self, event: events.TrialEvent) -> list[AttemptEnd]:
        if isinstance(event, events.TrialAssigned):
            opened = self._states.assign(event)
            if opened is not None and event.attempt == 0:
                self._reported[event.trial] = set()
        ends = self._states.prune(event) if isinstance(event, events.Prune) else []
        state = self._states.find_or_open(event)
        if state is not None and self.state != "finished":
            trial = self._get_running_trial(state)
            match event:
                case events.TrialAssigned():
                    trial.budget = event.budget
                case events.EvaluationComplete():
                    if event.trial in self._reported:
                        self._reported[event.trial].update(event.metrics)
                    self._add_evaluation(trial, event)
                case events.Prune():
                    trial.pruned_at = event.step
                case _:
                    pass
        return self._end_attempts(ends)

    def _get_running_trial(self, state: OpenTrial) -> RunningTrial:
        """Return the running trial of an open trial, created for a new attempt."""
        trial = self.running.get(state.number)
        if trial is None or trial.attempt != state.attempt:
            trial = self.running[state.number] = RunningTrial(state.number, state.attempt)
            self.n_retried += state.attempt > 0
        trial.worker, trial.slot, trial.params = state.worker, state.slot, state.params
        return trial

    def _end_attempts(
        self, ends: list[AttemptEnd], cause: Literal["lost", "interrupted"] | None = None
    ) -> list[AttemptEnd]:
        """Count and note the ends of attempts, unless the study has finished."""
        ends = [self._check_reported(end) for end in ends]
        for end in ends:
            trial = self.running.pop(end.trial.number, None)
            if self.state == "finished":
                continue
            if trial is None or trial.attempt != end.trial.attempt:
                trial = RunningTrial(end.trial.number, end.trial.attempt, params=end.trial.params)
            self.n_lost += cause == "lost"
            if end.cause != "waiting":
                self._close_trial(end, trial)
            elif cause is not None:
                self._add_note(cause, f"trial {trial.number} was {cause}; it is assigned again")
        return ends

    def _check_reported(self, end: AttemptEnd) -> AttemptEnd:
        """Return the end of an attempt; failed, as the optimizer records it, without objective."""
        if not end.is_closed:
            return end
        reported = self._reported.pop(end.trial.number, None)
        if end.cause != "complete" or end.values is not None or reported is None:
            return end
        missing = [metric for metric in self.metrics if metric not in reported]
        if not missing:
            return end
        verb = "was" if len(missing) == 1 else "were"
        error = f"{' and '.join(missing)} {verb} never reported"
        return dataclasses.replace(end, cause="failed", error=error)

    def _close_trial(self, end: AttemptEnd, trial: RunningTrial) -> None:
        name = f"trial {trial.number}"
        match end.cause:
            case "lost" | "failed":
                lines = (end.error or "").strip().splitlines()
                reason = lines[-1].strip() if lines else "no reason given"
                self._add_note("failed", f"{name} failed: {reason}")
            case "pruned":
                step = trial.step if trial.pruned_at is None else trial.pruned_at
                last = next(reversed(trial.curve.values()), None)
                at = "" if step is None else f" at step {step}"
                self._add_note("pruned", f"{name} pruned{at}{_format_note_value(last)}")
            case "complete":
                value = trial.value = self._compute_value(end, trial)
                self._add_note("complete", f"{name} complete{_format_note_value(value)}")
                self._update_best(value, trial)
            case _:
                return
        self.counts["failed" if end.cause == "lost" else end.cause] += 1

    def _apply_submitted(self, event: events.StudySubmitted) -> None:
        self._spec = event.spec
        self._states.max_retries = event.spec.max_retries
        if event.submission != self._submission:
            self._n_ended_earlier = sum(self.counts.values())
            self._run_began = self._clock()
        if self.state == "finished":
            self._began = self._clock()
        self.paused = False
        if self.state != "running":
            self.state = "submitted"
            self.n_trials = event.spec.n_trials
            self.metrics, self.directions = event.spec.metrics, event.spec.directions

    def _apply_started(self, event: events.StudyStarted) -> None:
        if event.submission == self._submission and event.n_done <= self.n_done:
            return
        self._submission = event.submission
        self.state, self.finished, self._ended_at = "running", None, None
        self.n_trials, self.n_before = event.n_trials, event.n_done
        self.metrics, self.directions = event.metrics, event.directions
        self.counts.clear()
        self._n_ended_earlier = 0
        if not event.n_done:
            self._best_complete = None  # the storage has no trial of earlier runs any more
        self._run_began = self._clock()
        if event.n_done:
            self._add_note(
                "resumed", f"resumed with {event.n_done} of {event.n_trials} trials done"
            )

    def _add_evaluation(self, trial: RunningTrial, event: events.EvaluationComplete) -> None:
        if trial.step is not None and event.step <= trial.step:
            return
        trial.step, trial.metrics = event.step, event.metrics
        value = event.metrics.get(self.metric or "")
        if value is None or math.isnan(value):
            return
        trial.curve[event.step] = value
        if len(trial.curve) > _CURVE:
            del trial.curve[next(iter(trial.curve))]
        if trial.best is None or self._is_better(value, trial.best):
            trial.best = value

    def _compute_value(self, end: AttemptEnd, trial: RunningTrial) -> float | None:
        if end.values:
            return end.values[0]
        objective = self._spec.objectives[0] if self._spec else None
        if objective is None:
            objective = Objective(metric=self.metric or "?", direction=self.direction)
        return (
            trial.best
            if objective.aggregate == "best"
            else compute_objective(trial.curve, objective)
        )

    def _update_best(self, value: float | None, trial: RunningTrial) -> None:
        if value is None or math.isnan(value) or not self.metrics:
            return
        if self._best_complete is None or self._is_better(value, self._best_complete.value):
            self._best_complete = Best(value, trial.number, trial.params)

    def _apply_finished(self, event: events.StudyFinished) -> None:
        if event.submission in self._ended_submissions:
            return
        self._ended_submissions.add(event.submission)
        self.state, self.finished = "finished", event
        self._ended_at = self._clock()
        self.running.clear()
        # The optimizer's counts include trials whose end this view did not see.
        self.n_before = 0
        self.counts = Counter(
            complete=event.counts.complete, pruned=event.counts.pruned, failed=event.counts.failed
        )
        if event.best_trials:
            best = event.best_trials[0]
            self._best_complete = Best(best.values[0], best.number, best.params)

    def _is_better(self, new: float, old: float) -> bool:
        return new > old if self.direction == "maximize" else new < old

    def _add_note(self, kind: NoteKind, text: str) -> None:
        self._notes.append(Note(kind, text))


def _format_note_value(value: float | None) -> str:
    return "" if value is None else f": {format_value(value, LIVE_DIGITS)}"
