"""Boards: what the page shows of each study, and what of it changed since some offset.

Everything is stamped with the offset of the event that changed it last. A browser says how far it
got, and is sent what is newer: whether it comes back after a minute or is a tenth of a second
behind, it misses nothing and gets nothing twice, and a slow one costs no queue.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus_services.monitor.event_text import described, plain
from trialbus_services.optimizer.trial_states import AttemptEnd
from trialbus_services.views.study_view import RunningTrial, StudyView

Json: TypeAlias = dict[str, Any]
State: TypeAlias = Literal["running", "complete", "pruned", "failed", "waiting"]

BEGINNING = -1  # the offset of who has seen nothing

_POINTS = 20_000  # newest points kept, for who has to catch up
_LINES = 200  # newest events kept, of each study
_CURVES = 24  # of trials that ended
_ERROR = 4000  # characters
#: Why a trial waits for its next attempt, by the event that ended the one before.
_WAITING: dict[type, str] = {
    events.TrainerLost: "its trainer was lost",
    events.RequestWithdrawn: "given back",
    events.TrialFinished: "interrupted",
}


@dataclass
class Row:
    """A trial: a line of the table.

    Attributes:
        made: Offset of the last change to what rarely changes.
        changed: Offset of the last change to anything.
    """

    number: int
    trial: RunningTrial
    state: State = "running"
    why: str = ""
    error: str = ""
    began_at: float | None = None
    ended_at: float | None = None
    made: int = BEGINNING
    changed: int = BEGINNING

    def since(self, offset: int) -> Json:
        """Return what a browser is sent that knows the row as it was at an offset."""
        trial = self.trial
        found: Json = {
            "n": self.number,
            "step": trial.step,
            "metrics": {name: plain(value) for name, value in trial.metrics.items()},
            "best": trial.best,
        }
        if self.made > offset:
            found |= {
                "state": self.state,
                "attempt": trial.attempt,
                "stopping": trial.pruned_at is not None and self.state == "running",
                "budget": trial.budget,
                "value": trial.value,
                "params": {name: plain(value) for name, value in trial.params.items()},
                "worker": trial.worker,
                "slot": trial.slot,
                "why": self.why,
                "error": self.error,
                "began_at": self.began_at,
                "ended_at": self.ended_at,
            }
        return found


@dataclass
class Board:
    """One study. `now` tells the time, in seconds since the epoch."""

    name: str
    now: Callable[[], float] = time.time
    spec: StudySpec | None = None
    report: str = ""
    changed: int = BEGINNING
    rows: OrderedDict[int, Row] = field(default_factory=OrderedDict[int, Row])
    """Trials by number, those that changed last at the end."""

    def __post_init__(self) -> None:
        self.view = StudyView(self.name, self.now)
        self._points: deque[tuple[int, list[Any]]] = deque()
        self._points_from = BEGINNING  # who is behind this needs whole curves
        self._lines: deque[tuple[int, events.AnyEvent]] = deque(maxlen=_LINES)
        self._ended: deque[Row] = deque()
        self._spec_at = BEGINNING

    def apply(self, event: events.AnyEvent, offset: int) -> None:
        """Take in an event of this study, or of none in particular."""
        running = self.view.running.get(getattr(event, "trial", None) or 0)
        same = running is not None and running.attempt == getattr(event, "attempt", None)
        step = running.step if running and same else None
        ends = self.view.apply(event)
        self.changed = offset
        self._lines.append((offset, event))
        match event:
            case events.StudySubmitted():
                self.spec, self._spec_at = event.spec, offset
            case events.StudyFinished():
                for row in [row for row in self.rows.values() if row.state == "running"]:
                    self._end(row, "waiting", "the study ended", offset)
            case events.ReportReady():
                self.report = event.paths[0] if event.paths else ""
            case events.TrialEvent() if not isinstance(event, events.TrialFinished):
                self._take(event, step, offset)
            case _:
                pass
        for end in ends:
            self._end_attempt(end, event, offset)

    def _take(self, event: events.TrialEvent, step: int | None, offset: int) -> None:
        trial = self.view.running.get(event.trial)
        if trial is None or trial.attempt != event.attempt:
            return
        row = self.rows.get(event.trial)
        if row is None or row.trial is not trial:
            row = self.rows[event.trial] = Row(event.trial, trial, began_at=event.at)
        if isinstance(event, events.Prune):
            row.why = f"{event.by}: {event.reason}" if event.by else event.reason
        if isinstance(event, events.EvaluationComplete):
            if trial.step == step:
                return  # seen before, or late
            self._add_point(event, trial, offset)
            self._touch(row, offset, made=row.made == BEGINNING)
        else:
            self._touch(row, offset)

    def _add_point(
        self, event: events.EvaluationComplete, trial: RunningTrial, offset: int
    ) -> None:
        value = trial.curve.get(event.step)
        if value is None or not math.isfinite(value):
            return
        self._points.append((offset, [event.trial, event.attempt, event.step, value]))
        if len(self._points) > _POINTS:
            self._points_from, _ = self._points.popleft()

    def _end_attempt(self, end: AttemptEnd, event: events.AnyEvent, offset: int) -> None:
        """Show how an attempt ended, unless the study ended before it."""
        row = self.rows.get(end.trial.number)
        if row is None or row.trial.attempt != end.trial.attempt or self.view.state == "finished":
            return
        # A loss is noticed only after the trainer's end, and stamped by the hub's clock.
        at = event.at if isinstance(event, events.TrialFinished) else None
        if end.cause == "waiting":
            why = end.error or _WAITING.get(type(event), "")
            self._end(row, "waiting", why, offset, at)
            return
        row.error = (end.error or "")[-_ERROR:]
        if row.error:
            row.why = row.error.strip().splitlines()[-1].strip()
        elif end.trial.pruned_by:
            row.why = end.trial.pruned_by
        self._end(row, "failed" if end.cause == "lost" else end.cause, row.why, offset, at)

    def _end(self, row: Row, state: State, why: str, offset: int, at: float | None = None) -> None:
        row.state, row.why, row.ended_at = state, why, self.now() if at is None else at
        self._touch(row, offset)
        self._ended.append(row)
        if len(self._ended) > _CURVES:
            self._ended.popleft().trial.curve.clear()

    def _touch(self, row: Row, offset: int, *, made: bool = True) -> None:
        row.changed = offset
        if made:
            row.made = offset
        self.rows.move_to_end(row.number)

    def summary(self) -> Json:
        """Return how the study is, in a few figures."""
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
            "lost": view.n_lost,
            "retried": view.n_retried,
            "metrics": view.metrics,
            "direction": view.direction,
            "best": None if best is None else [best.number, best.value],
            "elapsed_s": view.elapsed_s,
            "left_s": view.left_s,
            "report": self.report,
        }

    def since(self, offset: int) -> Json:
        """Return what changed after an offset; all of it for who has seen nothing.

        With `full`, what the browser has of the study is to be forgotten.
        """
        full = offset < self._points_from or offset == BEGINNING
        offset = BEGINNING if full else offset
        found: Json = {
            "full": full,
            "summary": self.summary(),
            "trials": [row.since(offset) for row in _newer(self.rows, offset)],
            "points": self._all_points() if full else self._points_since(offset),
            "lines": [
                {"offset": at, **described(event)} for at, event in self._lines if at > offset
            ],
        }
        if self.spec is not None and self._spec_at > offset:
            found["params"] = {
                name: msgspec.to_builtins(param) for name, param in self.spec.params.items()
            }
        return found

    def _points_since(self, offset: int) -> list[list[Any]]:
        found: list[list[Any]] = []
        for at, point in reversed(self._points):
            if at <= offset:
                break
            found.append(point)
        return found[::-1]

    def _all_points(self) -> list[list[Any]]:
        return [
            [row.number, row.trial.attempt, step, value]
            for row in self.rows.values()
            for step, value in row.trial.curve.items()
            if math.isfinite(value)
        ]


def _newer(rows: OrderedDict[int, Row], offset: int) -> Iterator[Row]:
    """Yield the rows that changed after an offset, the newest first."""
    for row in reversed(rows.values()):
        if row.changed <= offset:
            return
        yield row
