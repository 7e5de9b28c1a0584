"""Boards: the state of each study for the page, and the changes after any offset.

Each part of a board carries the offset of the event that changed the part last. A browser names the
offset of its newest message and is sent the newer changes. So a browser that is away for a minute
misses no change and gets none twice, and a slow browser needs no queue.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, TypeAlias

import msgspec

from trialbus.messages import events
from trialbus.study.search_space import CategoricalParam, Param
from trialbus.study.spec import StudySpec
from trialbus_services.monitor.event_text import describe_event, to_json_value
from trialbus_services.optimizer.trial_states import AttemptEnd
from trialbus_services.views.notes import get_last_line
from trialbus_services.views.study_view import RunningTrial, StudyView

Json: TypeAlias = dict[str, Any]
State: TypeAlias = Literal["running", "ended", "complete", "pruned", "failed", "waiting"]

BEGINNING = -1  # offset before the first event

_MAX_POINTS = 20_000  # newest points kept for browsers that catch up
_MAX_EVENTS = 200  # newest events kept of each study
_MAX_CURVES = 24  # curves kept of ended trials
_MAX_ERROR = 4000  # characters kept of an error
#: Reason why a trial waits for the next attempt, by the cause that ended the attempt before.
_WAITING_REASONS: dict[events.FailureCause | None, str] = {
    "exception": "the training failed",
    "killed": "the training was killed",
    "lost": "the trainer was lost",
    "out_of_memory": "out of memory",
    "preempted": "interrupted",
    "silent": "the training was silent",
    "timed_out": "timed out",
    None: "given back",
}


@dataclass
class Row:
    """Row of the table of trials: a trial with the newest attempt."""

    number: int
    """Number of the trial."""

    trial: RunningTrial
    """Newest attempt; kept after the end."""

    state: State = "running"
    """State of the trial; `ended` until the optimizer has recorded how the trial ended."""

    reason: str = ""
    """Reason of the state in one line; empty where there is none."""

    error: str = ""
    """End of the error with the traceback; empty without an error."""

    began_at: float | None = None
    """Start of the attempt, in seconds since the epoch."""

    ended_at: float | None = None
    """End of the attempt, in seconds since the epoch; None before the end."""

    details_changed: int = BEGINNING
    """Offset of the last change to more than step, metrics and best value."""

    changed: int = BEGINNING
    """Offset of the last change."""

    def get_changes(self, offset: int) -> Json:
        """Return the fields of the row that a browser at an offset may not have."""
        trial = self.trial
        changes: Json = {
            "number": self.number,
            "step": trial.step,
            "metrics": {name: to_json_value(value) for name, value in trial.metrics.items()},
            "best": trial.best,
        }
        if self.details_changed > offset:
            changes |= {
                "state": self.state,
                "attempt": trial.attempt,
                "stopping": trial.pruned_at is not None and self.state == "running",
                "budget": trial.budget,
                "value": trial.value,
                "params": {name: to_json_value(value) for name, value in trial.params.items()},
                "worker": trial.worker,
                "slot": trial.slot,
                "reason": self.reason,
                "error": self.error,
                "began_at": self.began_at,
                "ended_at": self.ended_at,
            }
        return changes


@dataclass
class Board:
    """Board of a study."""

    name: str
    """Name of the study."""

    now: Callable[[], float] = time.time
    """Clock, in seconds since the epoch."""

    spec: StudySpec | None = None
    """Specification; None before the submission."""

    report: str = ""
    """Path of the report's page; empty before there is a report."""

    changed: int = BEGINNING
    """Offset of the last change."""

    rows: OrderedDict[int, Row] = field(default_factory=OrderedDict[int, Row])
    """Rows by trial number, the last changed row at the end."""

    def __post_init__(self) -> None:
        self.view = StudyView(self.name, self.now)
        self._points: deque[tuple[int, list[Any]]] = deque()
        self._points_from = BEGINNING  # a browser before this offset needs whole curves
        self._events: deque[tuple[int, events.AnyEvent]] = deque(maxlen=_MAX_EVENTS)
        self._ended: deque[Row] = deque()
        self._spec_changed = BEGINNING
        #: Params that trainings asked for, where the study declares none.
        self._asked: dict[str, Param] = {}

    def apply(self, event: events.AnyEvent, offset: int) -> None:
        """Apply an event of the study, or the loss of a worker of any study."""
        trial = self.view.running.get(getattr(event, "trial", None) or 0)
        is_current = trial is not None and trial.attempt == getattr(event, "attempt", None)
        step_before = trial.step if trial and is_current else None
        ends = self.view.apply(event)
        self.changed = offset
        self._events.append((offset, event))
        match event:
            case events.StudySubmitted():
                self.spec, self._spec_changed = event.spec, offset
            case events.StudyFinished():
                for row in [row for row in self.rows.values() if row.state == "running"]:
                    self._end_row(row, "waiting", "the study ended", offset)
            case events.ReportReady():
                self.report = event.paths[0] if event.paths else ""
            case events.TrialClosed():
                self._close_row(event, offset)
            case events.TrialEvent() if not isinstance(event, events.TrialFinished):
                self._update_row(event, step_before, offset)
            case _:
                pass
        for end in ends:
            self._end_attempt(end, event, offset)

    def _update_row(self, event: events.TrialEvent, step_before: int | None, offset: int) -> None:
        trial = self.view.running.get(event.trial)
        if trial is None or trial.attempt != event.attempt:
            return
        row = self.rows.get(event.trial)
        if row is None or row.trial is not trial:
            row = self.rows[event.trial] = Row(event.trial, trial, began_at=event.at)
        if isinstance(event, events.ParamRequested) and event.name not in self._asked:
            self._asked[event.name], self._spec_changed = event.param, offset
        if isinstance(event, events.Prune):
            row.reason = f"{event.by}: {event.reason}" if event.by else event.reason
        if isinstance(event, events.EvaluationComplete):
            if trial.step == step_before:
                return  # a repeated or late evaluation
            self._add_point(event, trial, offset)
            self._mark_changed(row, offset, details=row.details_changed == BEGINNING)
        else:
            self._mark_changed(row, offset)

    def _add_point(
        self, event: events.EvaluationComplete, trial: RunningTrial, offset: int
    ) -> None:
        value = trial.curve.get(event.step)
        if value is None or not math.isfinite(value):
            return
        self._points.append((offset, [event.trial, event.attempt, event.step, value]))
        if len(self._points) > _MAX_POINTS:
            self._points_from, _ = self._points.popleft()

    def _end_attempt(self, end: AttemptEnd, event: events.AnyEvent, offset: int) -> None:
        """Record the end of an attempt in the row, unless the study ended before."""
        row = self.rows.get(end.trial.number)
        if row is None or row.trial.attempt != end.trial.attempt or self.view.state == "finished":
            return
        # A loss is noticed after the trainer's end, and carries the time of the hub's clock.
        at = event.at if isinstance(event, events.TrialFinished) else None
        row.error = (end.error or "")[-_MAX_ERROR:]
        if end.is_closed:
            self._end_row(row, "ended", row.reason, offset, at)
        else:
            reason = get_last_line(end.error) if end.error else _WAITING_REASONS[end.cause]
            self._end_row(row, "waiting", reason, offset, at)

    def _close_row(self, event: events.TrialClosed, offset: int) -> None:
        """Record the verdict about a trial in the row of the trial."""
        row = self.rows.get(event.trial)
        if row is None:
            row = self.rows[event.trial] = Row(
                event.trial, RunningTrial(event.trial, event.attempt)
            )
        row.trial.value = event.values[0] if event.values else None
        row.error = (event.error or "")[-_MAX_ERROR:]
        reason = get_last_line(event.error) if event.error else event.reason
        if not event.is_feasible:
            reason = "violates a constraint"
        self._end_row(row, event.state, reason, offset, row.ended_at)

    def _end_row(
        self, row: Row, state: State, reason: str, offset: int, at: float | None = None
    ) -> None:
        is_first = row.state in ("running", "waiting")
        row.state, row.reason = state, reason
        row.ended_at = self.now() if at is None else at
        self._mark_changed(row, offset)
        if is_first:
            self._ended.append(row)
        if len(self._ended) > _MAX_CURVES:
            self._ended.popleft().trial.curve.clear()

    def _mark_changed(self, row: Row, offset: int, *, details: bool = True) -> None:
        row.changed = offset
        if details:
            row.details_changed = offset
        self.rows.move_to_end(row.number)

    def summarize(self) -> Json:
        """Return state, counts, best value and times of the study."""
        view = self.view
        best = view.best
        return {
            "name": self.name,
            "state": view.state,
            "reason": view.finished.reason if view.finished else None,
            "error": view.finished.error if view.finished else None,
            "paused": view.paused and view.state == "running",
            "n_trials": view.n_trials,
            "n_done": view.n_done,
            "counts": view.counts,
            "running": len(view.running),
            "ended": len(view.ended),
            "lost": view.n_lost,
            "retried": view.n_retried,
            "metrics": view.metrics,
            "direction": view.direction,
            "best": None if best is None else [best.number, best.value, best.is_running],
            "elapsed_s": view.elapsed_s,
            "left_s": view.left_s,
            "report": self.report,
        }

    def get_changes(self, offset: int) -> Json:
        """Return the changes of the study after an offset.

        `full` tells the browser to drop its copy of the study: the offset is `BEGINNING`, or so
        old that the points after the offset are no longer kept.
        """
        full = offset < self._points_from or offset == BEGINNING
        offset = BEGINNING if full else offset
        changes: Json = {
            "full": full,
            "summary": self.summarize(),
            "trials": [row.get_changes(offset) for row in self._list_changed_rows(offset)],
            "points": self._list_all_points() if full else self._list_points_after(offset),
            "events": [
                {"offset": at, **describe_event(event)} for at, event in self._events if at > offset
            ],
        }
        if self.spec is not None and self._spec_changed > offset:
            params = self.spec.params | self._asked
            changes["params"] = {name: _describe_param(param) for name, param in params.items()}
        return changes

    def _list_changed_rows(self, offset: int) -> Iterator[Row]:
        """Yield the rows that changed after an offset, the last changed row first."""
        return takewhile(lambda row: row.changed > offset, reversed(self.rows.values()))

    def _list_points_after(self, offset: int) -> list[list[Any]]:
        newest = takewhile(lambda item: item[0] > offset, reversed(self._points))
        return [point for _, point in newest][::-1]

    def _list_all_points(self) -> list[list[Any]]:
        return [
            [row.number, row.trial.attempt, step, value]
            for row in self.rows.values()
            for step, value in row.trial.curve.items()
            if math.isfinite(value)
        ]


def _describe_param(param: Param) -> Json:
    """Return a param for the page: of choices the labels, in values that JSON can hold."""
    description: Json = msgspec.to_builtins(param)
    if isinstance(param, CategoricalParam):
        description["choices"] = [to_json_value(label) for label in param.labels]
    return description
