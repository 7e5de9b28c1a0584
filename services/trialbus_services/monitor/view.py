"""StudyView: the state of a running study, folded from its events.

No I/O and no clock of its own, so a terminal, a web page and a test can all use it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from trialbus import events
from trialbus.spec import Direction

_CURVE = 64  # newest values kept for a sparkline


@dataclass
class RunningTrial:
    """A trial that runs now."""

    number: int
    attempt: int
    worker: str = ""
    slot: int = 0
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    budget: int | None = None
    step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    curve: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class Best:
    """The best value so far, by the first objective, and whose it is."""

    value: float
    number: int
    params: dict[str, Any]


class StudyView:
    """What is known of one study from the events applied so far.

    It may join late, see events twice and meet types it does not know.

    Args:
        study: Name of the study; other studies' events are ignored.
        clock: Seconds since the epoch.

    Example:
        >>> view = StudyView("digits")
        >>> view.apply(trialbus.StudyStarted(study="digits", ...))  # doctest: +SKIP
    """

    def __init__(self, study: str, clock: Callable[[], float] = time.time) -> None:
        self.study = study
        self.state: Literal["submitted", "running", "finished"] = "submitted"
        self.began = clock()
        self.n_trials: int | None = None
        self.n_before = 0  #: trials finished before this submission
        self.metric: str | None = None
        self.direction: Direction = "maximize"
        self.counts: Counter[str] = Counter()
        self.running: dict[int, RunningTrial] = {}
        self.best: Best | None = None
        self.finished: events.StudyFinished | None = None
        self.notes: list[str] = []  #: lines worth telling, taken away by whoever tells them
        self._clock = clock
        self._ended: set[tuple[int, int]] = set()
        self._pruned: set[tuple[int, int]] = set()

    @property
    def n_done(self) -> int:
        """Trials that are finished, those from before included."""
        return self.n_before + sum(self.counts.values())

    @property
    def elapsed_s(self) -> float:
        """Seconds since this view began."""
        return self._clock() - self.began

    @property
    def left_s(self) -> float | None:
        """Estimate of the seconds to go, from the pace so far; None before there is one."""
        done = sum(self.counts.values())
        if not done or self.n_trials is None:
            return None
        return self.elapsed_s / done * max(0, self.n_trials - self.n_done)

    def apply(self, event: events.AnyEvent) -> None:
        """Take in one event."""
        if isinstance(event, events.UnknownEvent) or event.study != self.study:
            return
        match event:
            case events.StudyStarted():
                self.state = "running"
                self.n_trials, self.n_before = event.n_trials, event.n_done
                self.counts.clear()
                self.metric, self.direction = event.metrics[0], event.directions[0]
                if event.n_done:
                    self.notes.append(
                        f"resumed with {event.n_done} of {event.n_trials} trials done"
                    )
            case events.TrialAssigned():
                self.running[event.trial] = RunningTrial(
                    event.trial, event.attempt, event.worker, event.slot, event.params, event.budget
                )
            case events.EvaluationComplete():
                self._evaluation(event)
            case events.Prune():
                self._pruned.add((event.trial, event.attempt))
            case events.TrialFinished():
                self._trial_finished(event)
            case events.TrainerLost():
                self._lost(event)
            case events.StudyFinished():
                self._study_finished(event)
            case _:
                return

    def _evaluation(self, event: events.EvaluationComplete) -> None:
        trial = self.running.get(event.trial)
        if trial is None:
            if (event.trial, event.attempt) in self._ended:
                return
            trial = self.running[event.trial] = RunningTrial(event.trial, event.attempt)
        if trial.attempt != event.attempt:
            return
        trial.step = event.step
        trial.metrics = event.metrics
        value = event.metrics.get(self.metric or "")
        if value is None or math.isnan(value):
            return
        trial.curve = [*trial.curve[-_CURVE + 1 :], value]
        if self.best is None or self._better(value, self.best.value):
            self.best = Best(value, trial.number, trial.params)

    def _trial_finished(self, event: events.TrialFinished) -> None:
        key = (event.trial, event.attempt)
        trial = self.running.get(event.trial)
        if key in self._ended or (trial is not None and trial.attempt != event.attempt):
            return
        self._ended.add(key)
        self.running.pop(event.trial, None)
        name = f"trial {event.trial}"
        match event.state:
            case "preempted":
                self.notes.append(f"{name} was interrupted; it is handed out again")
                return
            case "failed":
                reason = (event.error or "no reason given").strip().splitlines()[-1]
                self.notes.append(f"{name} failed: {reason}")
            case "pruned":
                at = f" at step {trial.step}" if trial and trial.step is not None else ""
                self.notes.append(f"{name} pruned{at}{self._value(trial)}")
            case "complete":
                self.notes.append(f"{name} complete{self._value(trial)}")
        self.counts[event.state] += 1

    def _lost(self, event: events.TrainerLost) -> None:
        trial = self.running.get(event.trial) if event.trial is not None else None
        if trial is not None and trial.attempt == event.attempt:
            del self.running[trial.number]
            self.notes.append(f"trial {trial.number} was lost; it is handed out again")

    def _study_finished(self, event: events.StudyFinished) -> None:
        self.state = "finished"
        self.finished = event
        self.running.clear()
        # What the optimizer counted is the truth, also of trials that ended unseen.
        self.n_before = 0
        self.counts = Counter(
            complete=event.counts.complete, pruned=event.counts.pruned, failed=event.counts.failed
        )
        if event.best_trials:
            best = event.best_trials[0]
            self.best = Best(best.values[0], best.number, best.params)

    def _better(self, new: float, old: float) -> bool:
        return new > old if self.direction == "maximize" else new < old

    def _value(self, trial: RunningTrial | None) -> str:
        return f": {trial.curve[-1]:.5g}" if trial and trial.curve else ""
