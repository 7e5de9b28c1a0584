"""Compare what the trainings of a study wrote down with the log and with the database."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trialbus.messages import events
from trialbus_services.optimizer.attributes import ATTEMPT

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass
class Attempt:
    """An attempt at a trial, as its training wrote it down."""

    begun: int = 0
    """Number of processes that have begun this attempt."""
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    meant: dict[int, float] = field(default_factory=dict[int, float])
    """Values by step of reports that may have been made."""
    reported: dict[int, float] = field(default_factory=dict[int, float])
    """Values by step of reports whose call returned."""
    ending: str | None = None
    """State that the training was about to end with."""
    ended: bool = False
    """Whether the call that ends the trial returned."""


Accounts = Mapping[int, Mapping[int, Attempt]]
"""Attempts of a study by trial and attempt."""


def read_accounts(folder: Path) -> Accounts:
    """Read the accounts of a study."""
    accounts: dict[int, dict[int, Attempt]] = defaultdict(dict)
    for path in folder.iterdir() if folder.is_dir() else ():
        number, attempt = map(int, path.name.split("-"))
        accounts[number][attempt] = _read_attempt(path)
    return accounts


def _read_attempt(path: Path) -> Attempt:
    attempt = Attempt()
    for line in path.read_text().splitlines():
        match json.loads(line):
            case {"began": _, "params": params}:
                attempt.begun += 1
                attempt.params = params
            case {"reporting": step, "value": value}:
                attempt.meant[step] = value
            case {"reported": step, "value": value}:
                attempt.reported[step] = value
            case {"ending": state}:
                attempt.ending = state
            case {"ended": _}:
                attempt.ended = True
            case entry:
                raise AssertionError(entry)
    return attempt


@dataclass
class Differences:
    """Differences between accounts, log and database of a study, each with a line of text."""

    reports: int = 0
    found: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Kind of the difference, a key of the outcome, and what differs."""

    def add(self, kind: str, text: str) -> None:
        self.found.append((kind, text))


class Comparison:
    """The comparison of a study.

    Args:
        study: Name of the study.
        n_trials: Number of trials that the study was to have.
        accounts: What the trainings wrote down.
        log: Every event of the study in the log.
        trials: Trials of the study in the database.
    """

    def __init__(
        self,
        study: str,
        n_trials: int,
        accounts: Accounts,
        log: Iterable[events.AnyEvent],
        trials: Sequence[FrozenTrial],
    ) -> None:
        self._study = study
        self._n_trials = n_trials
        self._accounts = accounts
        self._trials = {trial.number: trial for trial in trials}
        self._log = list(log)
        self._last_attempts: dict[int, int] = {}
        self._logged: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
        self.differences = Differences()

    def run(self) -> Differences:
        """Compare, and return the differences."""
        self._check_log()
        self._check_accounts()
        for number in range(max(self._n_trials, *(n + 1 for n in self._trials), 1)):
            self._check_trial(number)
        self._check_counts()
        return self.differences

    def _add(self, kind: str, text: str) -> None:
        self.differences.add(kind, f"{self._study}: {text}")

    def _check_log(self) -> None:
        """Check assignments, and that no evaluation stands in the log twice."""
        requests: dict[tuple[int, int], set[str]] = defaultdict(set)
        trials: dict[str, set[tuple[int, int]]] = defaultdict(set)
        n_reports = Counter[tuple[int, int, int]]()
        for event in self._log:
            match event:
                case events.TrialAssigned():
                    key = (event.trial, event.attempt)
                    requests[key].add(event.request)
                    trials[event.request].add(key)
                    last = self._last_attempts.get(event.trial, 0)
                    self._last_attempts[event.trial] = max(last, event.attempt)
                case events.EvaluationComplete():
                    n_reports[event.trial, event.attempt, event.step] += 1
                    values = self._logged[event.trial, event.attempt]
                    values[event.step] = event.metrics["loss"]
                case _:
                    pass
        for key, several in requests.items():
            if len(several) > 1:
                self._add(
                    "trials_twice", f"trial and attempt {key} went to {len(several)} requests"
                )
        for request, several in trials.items():
            if len(several) > 1:
                self._add("trials_twice", f"request {request} got {sorted(several)}")
        for report, count in n_reports.items():
            if count > 1:
                self._add("repeated", f"trial, attempt and step {report}: {count} times in the log")

    def _check_accounts(self) -> None:
        """Check that the log has what the trainings reported, and nothing else."""
        for number, attempts in self._accounts.items():
            for n_attempt, attempt in attempts.items():
                at = f"trial {number}, attempt {n_attempt}"
                if attempt.begun > 1:
                    self._add("trials_twice", f"{at} was begun by {attempt.begun} processes")
                logged = self._logged[number, n_attempt]
                self.differences.reports += len(attempt.reported)
                for step in attempt.reported.keys() - logged.keys():
                    self._add("missing", f"{at}: step {step} is not in the log")
                for step, value in logged.items():
                    if attempt.meant.get(step) != value:
                        was = attempt.meant.get(step)
                        self._add(
                            "altered", f"{at}: step {step} is {value!r} in the log, was {was!r}"
                        )
        for (number, n_attempt), logged in self._logged.items():
            if logged and n_attempt not in self._accounts.get(number, {}):
                self._add("altered", f"attempt {n_attempt} of trial {number} never ran")

    def _check_trial(self, number: int) -> None:
        trial = self._trials.get(number)
        attempts = self._accounts.get(number, {})
        n_last = self._last_attempts.get(number, 0)
        if trial is None:
            self._add("trials_lost", f"trial {number} is not in the database")
            return
        if number >= self._n_trials:
            self._add("trials_twice", f"trial {number} of {self._n_trials} is in the database")
        if not trial.state.is_finished():
            self._add("trials_running", f"trial {number} is {trial.state.name}")
            return
        last = attempts.get(n_last)
        at = f"trial {number}, {trial.state.name} at attempt {n_last}"
        if last is None:
            self._add("wrong_state", f"{at}: its training never began")
            return
        if last.ending is None or trial.state is not _STATES[last.ending]:
            self._add("wrong_state", f"{at}: its training wrote {last.ending}, ended {last.ended}")
        if trial.user_attrs.get(ATTEMPT, 0) != n_last:
            self._add("wrong_state", f"{at}: recorded as attempt {trial.user_attrs.get(ATTEMPT)}")
        for name, value in trial.params.items():
            if last.params.get(name) != value:
                self._add("altered", f"{at}: {name} is {value!r}, was {last.params.get(name)!r}")
        self._check_curve(at, trial, self._build_curve(number, n_last))

    def _build_curve(self, number: int, n_last: int) -> dict[int, float]:
        """Return the curve of a trial: an attempt replaces what lies at or after its first step."""
        curve: dict[int, float] = {}
        for n_attempt in range(n_last + 1):
            values = self._logged[number, n_attempt]
            first = min(values, default=math.inf)
            curve = {step: value for step, value in curve.items() if step < first} | values
        return curve

    def _check_curve(self, at: str, trial: FrozenTrial, curve: Mapping[int, float]) -> None:
        recorded = trial.intermediate_values
        for step, value in curve.items():
            if step not in recorded:
                self._add("missing", f"{at}: step {step} is not in the database")
            elif recorded[step] != value:
                text = f"{at}: step {step} is {recorded[step]!r}, was {value!r}"
                self._add("altered", text)
        for step in recorded.keys() - curve.keys():
            self._add("altered", f"{at}: step {step} is in the database, of a given-up attempt")
        if trial.state is TrialState.COMPLETE and curve:
            value = curve[max(curve)]
            if trial.value != value:
                self._add("altered", f"{at}: the objective is {trial.value!r}, was {value!r}")

    def _check_counts(self) -> None:
        states = Counter(trial.state for trial in self._trials.values())
        counts = events.TrialCounts(
            complete=states[TrialState.COMPLETE],
            pruned=states[TrialState.PRUNED],
            failed=states[TrialState.FAIL],
        )
        ends = [event for event in self._log if isinstance(event, events.StudyFinished)]
        if not ends:
            self._add("trials_running", "the study has no end")
        elif ends[-1].counts != counts:
            self._add("wrong_state", f"the study ended with {ends[-1].counts}, has {counts}")
        elif ends[-1].reason != "exhausted":
            self._add("wrong_state", f"the study ended as {ends[-1].reason}: {ends[-1].error}")
