"""The optimizer's ledger and a view agree about the same trials."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import trialbus
from trialbus_services.optimizer.ledger import Ledger
from trialbus_services.views.study_view import StudyView

SPEC = trialbus.StudySpec(
    name="s",
    params={"x": trialbus.FloatParam(low=0, high=1)},
    objectives=(trialbus.Objective(metric="m"),),
    n_trials=10,
    max_retries=1,
)
SUBMITTED = trialbus.StudySubmitted(study="s", spec=SPEC, submission="1")
STARTED = trialbus.StudyStarted(
    study="s", submission="1", directions=["maximize"], metrics=["m"], n_trials=10
)


def event(kind: str, trial: int, attempt: int) -> trialbus.Event:
    of: dict[str, Any] = {"study": "s", "trial": trial, "attempt": attempt}
    ids: dict[str, Any] = {"request": f"{trial}.{attempt}", "session": f"worker {trial % 2}"}
    return {
        "assign": lambda: trialbus.TrialAssigned(params={"x": 0.5}, **ids, **of),
        "evaluate": lambda: trialbus.EvaluationComplete(step=1, metrics={"m": 0.5}, **of),
        "prune": lambda: trialbus.Prune(step=1, **of),
        "person prunes": lambda: trialbus.Prune(step=1, by="ada", **of),
        "lose worker": lambda: trialbus.TrainerLost(session=ids["session"], kind="worker"),
        "lose trainer": lambda: trialbus.TrainerLost(session="t", kind="trainer", **of),
        "withdraw": lambda: trialbus.RequestWithdrawn(request=ids["request"]),
        "complete": lambda: trialbus.TrialFinished(state="complete", values=[0.5], **of),
        "pruned": lambda: trialbus.TrialFinished(state="pruned", **of),
        "failed": lambda: trialbus.TrialFinished(state="failed", **of),
        "preempted": lambda: trialbus.TrialFinished(state="preempted", **of),
    }[kind]()


KINDS = (
    "assign",
    "evaluate",
    "prune",
    "person prunes",
    "lose worker",
    "lose trainer",
    "withdraw",
    "complete",
    "pruned",
    "failed",
    "preempted",
)
HISTORIES = st.lists(
    st.tuples(st.sampled_from(("assign", *KINDS)), st.integers(0, 2), st.integers(0, 2)),
    max_size=40,
)


def possible(history: list[tuple[str, int, int]]) -> list[trialbus.Event]:
    """Return the events of a history without events of attempts that were never assigned.

    A trainer speaks only of an attempt that it was given, and the next attempt of a trial is
    handed out only after the one before has ended.
    """
    ledger = Ledger()
    ledger.apply(SUBMITTED)
    known: set[tuple[int, int]] = set()
    events: list[trialbus.Event] = []
    for kind, trial, attempt in history:
        waiting = ledger.studies["s"].trials.open.get(trial)
        due = waiting.attempt + 1 if waiting and waiting.is_waiting else 0
        is_next = attempt == due and (trial, attempt) not in known
        if kind == "assign" and not (is_next or (trial, attempt) in known):
            continue
        if kind not in ("assign", "withdraw", "lose worker") and (trial, attempt) not in known:
            continue
        if kind == "assign":
            known.add((trial, attempt))
        events.append(event(kind, trial, attempt))
        ledger.apply(events[-1])
    return events


@given(HISTORIES)
@example([("assign", 0, 0), ("person prunes", 0, 0), ("lose worker", 0, 0)])
@example([("assign", 0, 0), ("lose worker", 0, 0), ("person prunes", 0, 0)])
@example([("assign", 0, 0), ("lose trainer", 0, 0), ("assign", 0, 1), ("lose trainer", 0, 1)])
@example([("withdraw", 0, 0), ("assign", 0, 0), ("evaluate", 0, 0)])
@example([("assign", 0, 0), ("withdraw", 0, 0), ("evaluate", 0, 0), ("assign", 0, 1)])
def test_ledger_and_view_agree_on_which_trials_are_open_waiting_and_closed_and_how(
    history: list[tuple[str, int, int]],
) -> None:
    ledger, view = Ledger(), StudyView("s", clock=lambda: 0.0)
    causes: Counter[str] = Counter()
    withdrawn: set[str] = set()
    for happened in (SUBMITTED, STARTED, *possible(history)):
        if isinstance(happened, trialbus.RequestWithdrawn):
            withdrawn.add(happened.request)
        if isinstance(happened, trialbus.TrialEvent):
            late = f"{happened.trial}.{happened.attempt}" in withdrawn
            if late and ledger.studies["s"].trials.find_running(happened) is None:
                continue  # whoever withdraws a request does not train its trial
        closed = ledger.apply(happened)
        ends = view.apply(happened)
        assert [(end.trial.number, end.cause, end.error) for end in closed] == [
            (end.trial.number, end.cause, end.error) for end in ends if end.is_closed
        ]
        causes.update("failed" if end.cause == "lost" else end.cause for end in closed)
        trials = ledger.studies["s"].trials.open
        running = {n: trial.attempt for n, trial in trials.items() if not trial.is_waiting}
        assert {n: trial.attempt for n, trial in view.running.items()} == running
        assert view.counts == causes


@pytest.mark.parametrize(
    "history",
    [
        [("assign", 0, 0), ("person prunes", 0, 0), ("lose worker", 0, 0)],
        [("assign", 0, 0), ("lose worker", 0, 0), ("person prunes", 0, 0)],
        [("assign", 0, 0), ("person prunes", 0, 0), ("preempted", 0, 0)],
    ],
)
def test_a_trial_that_a_person_pruned_counts_as_pruned_however_its_attempt_ends(
    history: list[tuple[str, int, int]],
) -> None:
    view = StudyView("s", clock=lambda: 0.0)
    for happened in (SUBMITTED, STARTED, *possible(history)):
        view.apply(happened)
    assert dict(view.counts) == {"pruned": 1}
    assert view.running == {}


def test_a_trial_of_a_study_that_is_submitted_again_keeps_its_worker() -> None:
    ended = trialbus.StudyFinished(study="s", submission="1", reason="failed")
    again = trialbus.StudyStarted(
        study="s", submission="2", directions=["maximize"], metrics=["m"], n_trials=10
    )
    view = StudyView("s", clock=lambda: 0.0)
    history = (SUBMITTED, STARTED, event("assign", 0, 0), ended, again, event("evaluate", 0, 0))
    for happened in history:
        view.apply(happened)
    assert view.running[0].params == {"x": 0.5}
    view.apply(event("lose worker", 0, 0))
    assert (view.running, view.n_lost) == ({}, 1)
