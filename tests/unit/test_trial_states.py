"""The optimizer's ledger and a view agree about the same trials."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import trialbus
from trialbus.messages import events
from trialbus_services.optimizer.ledger import Ledger
from trialbus_services.optimizer.trial_states import AttemptEnd, TrialStates
from trialbus_services.views.study_view import StudyView

SPEC = trialbus.StudySpec(
    name="s",
    params={"x": trialbus.FloatParam(low=0, high=1)},
    objectives=(trialbus.Objective(metric="m"),),
    n_trials=10,
    max_retries=1,
    retries={"silent": 1, "preempted": 2},
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
        "killed": lambda: trialbus.TrialFinished(state="failed", exit_code=-9, **of),
        "silent": lambda: trialbus.TrialFinished(state="failed", cause="silent", **of),
        "timed out": lambda: trialbus.TrialFinished(state="failed", cause="timed_out", **of),
        "preempted": lambda: trialbus.TrialFinished(state="preempted", **of),
        "terminated": lambda: trialbus.TrialFinished(state="preempted", cause="killed", **of),
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
    "killed",
    "silent",
    "timed out",
    "preempted",
    "terminated",
)
HISTORIES = st.lists(
    st.tuples(st.sampled_from(("assign", *KINDS)), st.integers(0, 2), st.integers(0, 4)),
    max_size=60,
)


def possible(history: list[tuple[str, int, int]]) -> list[trialbus.Event]:
    """Return the events of a history without events of attempts that were never assigned.

    A trainer speaks only of an attempt that it was given, and the next attempt of a trial is
    handed out only after the one before has ended.
    """
    ledger = Ledger()
    ledger.apply(SUBMITTED)
    known: set[tuple[int, int]] = set()
    found: list[trialbus.Event] = []
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
        found.append(event(kind, trial, attempt))
        ledger.apply(found[-1])
    return found


def build_verdict(end: AttemptEnd, counts: Counter[str]) -> trialbus.TrialClosed:
    """Return what the optimizer publishes of a trial that it recorded as ended."""
    return trialbus.TrialClosed(
        study="s",
        trial=end.trial.number,
        attempt=end.trial.attempt,
        state=end.state,  # type: ignore[arg-type]
        cause=end.cause,
        error=end.error,
        counts=events.TrialCounts(**counts),
    )


@given(HISTORIES, st.data())
@example([("assign", 0, 0), ("person prunes", 0, 0), ("lose worker", 0, 0)], None)
@example([("assign", 0, 0), ("lose worker", 0, 0), ("person prunes", 0, 0)], None)
@example([("assign", 0, 0), ("lose trainer", 0, 0), ("assign", 0, 1), ("lose trainer", 0, 1)], None)
@example([("withdraw", 0, 0), ("assign", 0, 0), ("evaluate", 0, 0)], None)
@example([("assign", 0, 0), ("withdraw", 0, 0), ("evaluate", 0, 0), ("assign", 0, 1)], None)
def test_ledger_and_view_agree_on_which_trials_are_open_waiting_and_closed_and_how(
    history: list[tuple[str, int, int]], data: st.DataObject | None
) -> None:
    ledger, view = Ledger(), StudyView("s", clock=lambda: 0.0)
    states: Counter[str] = Counter()
    verdicts: list[trialbus.TrialClosed] = []
    withdrawn: set[str] = set()
    for happened in (SUBMITTED, STARTED, *possible(history)):
        if isinstance(happened, trialbus.RequestWithdrawn):
            withdrawn.add(happened.request)
        if isinstance(happened, trialbus.TrialEvent):
            late = f"{happened.trial}.{happened.attempt}" in withdrawn
            if late and ledger.studies["s"].trials.find_running(happened) is None:
                continue  # whoever withdraws a request does not train its trial
        ends = ledger.apply(happened)
        assert view.apply(happened) == ends
        for end in ends:
            if end.is_closed:
                states[end.state] += 1
                verdicts.append(build_verdict(end, states))
        trials = ledger.studies["s"].trials.open
        running = {n: trial.attempt for n, trial in trials.items() if not trial.is_waiting}
        assert {n: trial.attempt for n, trial in view.running.items()} == running
        assert view.ended.keys() | view.running.keys() == running.keys() | {
            verdict.trial for verdict in verdicts
        }
        # Verdicts come behind the storage, together and late, and some of them twice.
        if verdicts and (data is None or data.draw(st.booleans())):
            for verdict in (*verdicts, *verdicts[:1]):
                assert (ledger.apply(verdict), view.apply(verdict)) == ([], [])
            verdicts.clear()
            assert (view.counts, view.ended) == (states, {})


@given(
    st.lists(st.sampled_from(("killed", "lost", "silent", "exception", "preempted")), max_size=12)
)
def test_a_trial_is_handed_out_again_as_often_as_the_causes_of_its_ends_allow(
    causes: list[events.FailureCause],
) -> None:
    limits = {"killed": 1, "lost": 1, "silent": 1, "exception": 0}
    ledger = Ledger()
    ledger.apply(SUBMITTED)
    for attempt, cause in enumerate(causes):
        ledger.apply(event("assign", 0, attempt))
        trial = ledger.studies["s"].trials.open[0]
        assert trial.causes == causes[:attempt]
        [end] = ledger.apply(
            trialbus.TrialFinished(study="s", trial=0, attempt=attempt, state="failed", cause=cause)
        )
        is_over = causes[: attempt + 1].count(cause) > limits.get(cause, 100)
        assert (end.is_closed, end.cause) == (is_over, cause)
        if is_over:
            return


def test_a_trial_that_is_given_back_again_and_again_without_a_new_step_is_closed() -> None:
    trials = TrialStates("s")
    trials.spec = SPEC
    steps: list[int | None] = [None, 3, 3, 2, 4, None, 4, 1]
    n_idle, end = 0, None
    for attempt, step in enumerate(steps):
        of: dict[str, Any] = {"study": "s", "trial": 0, "attempt": attempt}
        before = trials.open.get(0)
        trial = trials.assign(
            trialbus.TrialAssigned(
                **of,
                request=str(attempt),
                params={},
                n_idle=0 if before is None else before.count_idle(),
                last_step=None if before is None else before.last_step,
            )
        )
        assert trial is not None
        assert trial.n_idle == n_idle
        if step is not None:
            trial.add_step(step)
        n_idle = 0 if attempt in (1, 4) else n_idle + 1
        [end] = trials.finish(trialbus.TrialFinished(**of, state="preempted"))
        assert not end.is_closed
        end = trials.give_up(end)
        assert end.is_closed == (attempt == len(steps) - 1)
    assert end is not None
    assert (end.state, end.cause) == ("failed", "preempted")
    assert end.error == "given back 3 times in a row without a new step (study.retries.preempted=2)"


def test_a_request_that_was_withdrawn_does_not_count_as_an_attempt_without_a_new_step() -> None:
    trials = TrialStates("s")
    for attempt in range(50):
        trial = trials.assign(
            trialbus.TrialAssigned(
                study="s", trial=0, attempt=attempt, request=str(attempt), params={}
            )
        )
        assert trial is not None
        [end] = trials.withdraw(str(attempt))
        assert (trial.count_idle(), trials.give_up(end).is_closed, trial.causes) == (0, False, [])


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
    ends: list[AttemptEnd] = []
    for happened in (SUBMITTED, STARTED, *possible(history)):
        ends = view.apply(happened)
    assert [end.state for end in ends] == ["pruned"]
    assert (list(view.ended), view.running) == ([0], {})


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
