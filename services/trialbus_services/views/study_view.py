"""StudyView: the state of a running study, folded from the events of the log.

No I/O, and the clock is passed in, so that a terminal, a web page and a test can all use the view.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from trialbus.messages import events
from trialbus.study.spec import Direction
from trialbus.study.validation import find_nearest
from trialbus_services.optimizer.trial_states import AttemptEnd, OpenTrial, TrialStates
from trialbus_services.views.formats import LIVE_DIGITS, format_value
from trialbus_services.views.notes import (
    RETRY_NOTES,
    Note,
    NoteKind,
    get_last_line,
    quote_lines,
)

_CURVE = 256  # newest values kept of a running trial
_NOTES = 1000  # newest notes kept while no reader takes them


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
    earlier: dict[int, float] = field(default_factory=dict[int, float])
    """Curve of earlier attempts, until this attempt reports."""
    best: float | None = None
    """Best value of the first objective's metric at any step."""
    pruned_at: int | None = None
    """Step at which the optimizer told the trial to stop; None before."""
    value: float | None = None
    """Objective value of the trial; None until the optimizer has recorded it as complete."""

    def take_over(self, direction: Direction, first_step: int) -> None:
        """Take over what earlier attempts reported before the first step of this attempt."""
        self.curve = {step: v for step, v in self.earlier.items() if step < first_step}
        self.earlier = {}
        if self.curve:
            choose = max if direction == "maximize" else min
            self.best = choose(self.curve.values())


@dataclass(frozen=True)
class Best:
    """Best trial so far by the first objective."""

    value: float
    number: int
    params: dict[str, Any]
    is_running: bool = False
    """Whether the trial still runs, and may fail: no trial is complete yet."""


class StudyView:
    """The state of a study after the events applied so far.

    A view may join late, see events twice and meet unknown types. Counts, states and values are
    those that the optimizer recorded: of `study_started`, of each `trial_closed` and of
    `study_finished`. What a trainer says of its trial only shows that the training has ended.

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
        self.n_before = 0  #: trials finished before this submission, of states that are not known
        self.n_events = 0
        self.n_lost = 0
        self.n_retried = 0
        self.paused = False
        self.metrics: list[str] = []
        self.directions: list[Direction] = []
        self.counts: Counter[str] = Counter()
        self.running: dict[int, RunningTrial] = {}
        #: Trials whose training has ended, and whose verdict has not arrived yet.
        self.ended: dict[int, RunningTrial] = {}
        self.finished: events.StudyFinished | None = None
        self._clock = clock
        self._began = self._run_began = clock()
        self._elapsed_before_s = 0.0  # in earlier runs of the study
        self._started_at: float | None = None  # by the optimizer's clock
        self._wall_s: float | None = None
        self._notes: deque[Note] = deque(maxlen=_NOTES)
        self._best_complete: Best | None = None
        self._submission: str | None = None  # the submission that runs
        self._ended_submissions: set[str] = set()
        self._states = TrialStates(study)
        #: Numbers of the trials whose verdict was applied in this run.
        self._closed: set[int] = set()
        #: Whether a trial reported the metric of each objective, or a note says that it is missing.
        self._is_metric_known = False
        #: Whether a note has quoted an error of several lines in this run.
        self._has_quoted_error = False
        #: Trials in `n_done` when this run began.
        self._n_done_earlier = 0
        #: Curves of trials that wait for the next attempt.
        self._earlier: dict[int, dict[int, float]] = {}

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
                best = Best(trial.best, trial.number, trial.params, is_running=True)
        return best

    @property
    def n_done(self) -> int:
        """Number of finished trials, with trials from before this submission."""
        return self.n_before + sum(self.counts.values())

    @property
    def elapsed_s(self) -> float:
        """Seconds that the study has run, with earlier runs, without the time between the runs."""
        run_s = self._clock() - self._began if self._wall_s is None else self._wall_s
        return self._elapsed_before_s + run_s

    @property
    def left_s(self) -> float | None:
        """Estimate of the seconds until the end.

        None before a trial of this run has finished, and when no trial is left.
        """
        n_ended = self.n_done - self._n_done_earlier
        n_left = 0 if self.n_trials is None else self.n_trials - self.n_done
        if n_ended <= 0 or n_left <= 0 or self.state == "finished":
            return None
        return (self._clock() - self._run_began) / n_ended * n_left

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
                return self._end_attempts(self._states.lose(event))
            case events.RequestWithdrawn():
                return self._end_attempts(self._states.withdraw(event.request))
            case events.TrialFinished():
                self._states.find_or_open(event)
                return self._end_attempts(self._states.finish(event))
            case events.TrialClosed():
                self._close_trial(event)
            case events.TrialEvent():
                return self._follow_trial(event)
            case _:
                pass
        return []

    def _follow_trial(self, event: events.TrialEvent) -> list[AttemptEnd]:
        if isinstance(event, events.TrialAssigned):
            self._states.assign(event)
        ends = self._states.prune(event) if isinstance(event, events.Prune) else []
        state = self._states.find_or_open(event)
        if state is not None and self.state != "finished":
            trial = self._get_running_trial(state)
            match event:
                case events.TrialAssigned():
                    trial.budget = event.budget
                case events.EvaluationComplete():
                    self._check_metrics(event)
                    self._add_evaluation(trial, event)
                case events.ParamRequested(answer=False) | events.ParamSuggested(error=None):
                    trial.params[event.name] = event.value
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
            trial.earlier = self._earlier.pop(state.number, {})
            self.n_retried += state.attempt > 0
        trial.worker, trial.slot, trial.params = state.worker, state.slot, state.params
        return trial

    def _end_attempts(self, ends: list[AttemptEnd]) -> list[AttemptEnd]:
        """Note the ends of attempts, unless the study has finished."""
        for end in ends:
            number = end.trial.number
            trial = self.running.pop(number, None)
            if trial is not None and end.state == "waiting":
                self._earlier[number] = {**trial.earlier, **trial.curve}
            if self.state == "finished":
                continue
            if trial is None or trial.attempt != end.trial.attempt:
                trial = RunningTrial(number, end.trial.attempt, params=end.trial.params)
            self.n_lost += end.cause == "lost"
            if end.is_closed and number not in self._closed:
                self.ended[number] = trial
            elif end.cause is not None:
                kind, text = RETRY_NOTES[end.cause]
                error = end.error if end.cause == "exception" else None
                reason = f": {get_last_line(error)}" if error else ""
                text = f"trial {number} {text}{reason}; it is assigned again"
                self._add_note(kind, text + self._quote_first_error(error))
        return ends

    def _close_trial(self, event: events.TrialClosed) -> None:
        """Count and note a verdict, unless it was applied before."""
        self._states.close(event)
        number = event.trial
        running, ended = self.running.pop(number, None), self.ended.pop(number, None)
        if self.state == "finished" or number in self._closed:
            return
        self._closed.add(number)
        self._count(event)
        trial = running or ended or RunningTrial(number, event.attempt)
        name = f"trial {number}"
        match event.state:
            case "failed":
                text = f"{name} failed: {get_last_line(event.error)}"
                self._add_note("failed", text + self._quote_first_error(event.error))
            case "pruned":
                self._add_note("pruned", f"{name} pruned{_describe_prune(event, trial)}")
            case "complete":
                trial.value = event.values[0] if event.values else None
                limits = "" if event.is_feasible else ", which violates a constraint"
                text = f"{name} complete{_format_note_value(trial.value)}{limits}"
                self._add_note("complete", text)
                if event.is_feasible:
                    self._update_best(trial.value, trial)

    def _count(self, event: events.TrialClosed) -> None:
        """Take over the counts of the optimizer, which an old verdict does not set back."""
        if event.counts is None:
            self.counts[event.state] += 1
            return
        counts = _to_counter(event.counts)
        if counts.total() >= self.n_done:
            self.counts, self.n_before = counts, 0

    def _check_metrics(self, event: events.EvaluationComplete) -> None:
        """Note once that reports lack the metric of an objective, before any report had it."""
        if self._is_metric_known or not self.metrics:
            return
        self._is_metric_known = True
        missing = [metric for metric in self.metrics if metric not in event.metrics]
        if missing:
            near = find_nearest(missing[0], event.metrics)
            reported = ", ".join(sorted(event.metrics)) or "nothing"
            hint = f"; did you mean {near!r}?" if near else ""
            self._add_note(
                "missing",
                f"{missing[0]!r} is missing in the report of trial {event.trial} at step "
                f"{event.step}, which has: {reported}{hint}",
            )

    def _apply_submitted(self, event: events.StudySubmitted) -> None:
        self._states.spec = event.spec
        if event.submission != self._submission:
            self._n_done_earlier = self.n_done
            self._run_began = self._clock()
        if self.state == "finished":
            self._elapsed_before_s, self._started_at = self.elapsed_s, None
            self._began, self._wall_s = self._clock(), None
        self.paused = False
        if self.state != "running":
            self.state = "submitted"
            self.n_trials = event.spec.n_trials
            self.metrics, self.directions = event.spec.metrics, event.spec.directions

    def _apply_started(self, event: events.StudyStarted) -> None:
        if event.submission == self._submission and event.n_done <= self.n_done:
            return
        self._submission = event.submission
        self.state, self.finished, self._wall_s = "running", None, None
        self.n_trials = event.n_trials
        self.metrics, self.directions = event.metrics, event.directions
        self.counts = _to_counter(event.counts)
        self.n_before = max(0, event.n_done - self.counts.total())
        self._n_done_earlier = self.n_done
        self._closed.clear()
        self._has_quoted_error = False
        self._is_metric_known = self.counts["complete"] > 0
        if event.best_trials or not event.n_done:
            self._best_complete = _to_best(event.best_trials)
        self._began = self._run_began = self._clock()
        self._started_at, self._elapsed_before_s = event.at, event.elapsed_s
        if event.n_done:
            done = f"{event.n_done} of {event.n_trials} trials done"
            if event.n_done > event.n_trials:
                done = f"{event.n_done} trials done, and study.n_trials={event.n_trials}"
            self._add_note("resumed", f"resumed with {done}")

    def _add_evaluation(self, trial: RunningTrial, event: events.EvaluationComplete) -> None:
        if trial.step is None:
            trial.take_over(self.direction, event.step)
        elif event.step <= trial.step:
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

    def _update_best(self, value: float | None, trial: RunningTrial) -> None:
        if value is None or math.isnan(value) or not self.metrics:
            return
        best = self._best_complete
        # Of equal trials the first counts, as in the storage.
        is_first = best is not None and value == best.value and trial.number < best.number
        if best is None or is_first or self._is_better(value, best.value):
            self._best_complete = Best(value, trial.number, trial.params)

    def _apply_finished(self, event: events.StudyFinished) -> None:
        if event.submission in self._ended_submissions:
            return
        self._ended_submissions.add(event.submission)
        self.state, self.finished = "finished", event
        if self._started_at is not None:
            self._wall_s = max(0.0, event.at - self._started_at)
        else:
            self._wall_s = self._clock() - self._began
        self.running.clear()
        self.ended.clear()
        self._earlier.clear()
        # The optimizer's counts include trials whose end this view did not see.
        self.n_before = 0
        self.counts = _to_counter(event.counts)
        if event.best_trials:
            self._best_complete = _to_best(event.best_trials)

    def _is_better(self, new: float, old: float) -> bool:
        return new > old if self.direction == "maximize" else new < old

    def _quote_first_error(self, error: str | None) -> str:
        """Return the lines of the run's first error of several lines, to stand below a note."""
        quote = "" if self._has_quoted_error else quote_lines(error)
        self._has_quoted_error = self._has_quoted_error or bool(quote)
        return quote

    def _add_note(self, kind: NoteKind, text: str) -> None:
        self._notes.append(Note(kind, text))


def _describe_prune(event: events.TrialClosed, trial: RunningTrial) -> str:
    if event.reason:
        return f" at {event.reason}" if event.reason.startswith("step ") else f": {event.reason}"
    step = trial.step if trial.pruned_at is None else trial.pruned_at
    if step is None:
        return ""
    return f" at step {step}{_format_note_value(trial.curve.get(step))}"


def _to_counter(counts: events.TrialCounts) -> Counter[str]:
    return +Counter(complete=counts.complete, pruned=counts.pruned, failed=counts.failed)


def _to_best(trials: list[events.BestTrial]) -> Best | None:
    if not trials:
        return None
    return Best(trials[0].values[0], trials[0].number, trials[0].params)


def _format_note_value(value: float | None) -> str:
    return "" if value is None else f": {format_value(value, LIVE_DIGITS)}"
