"""The ledger is a fold of the log without effects of repeated and late events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import trialbus
from trialbus.messages.hand_outs import HandOuts
from trialbus_services.optimizer.ledger import Ledger

SPEC = trialbus.StudySpec(
    name="s",
    params={"x": trialbus.FloatParam(low=0, high=1)},
    objectives=(trialbus.Objective(metric="m"),),
    n_trials=10,
    max_retries=1,
)
SUBMITTED = trialbus.StudySubmitted(study="s", spec=SPEC, submission="1")


def requested(request: str, session: str = "w") -> trialbus.TrialRequested:
    return trialbus.TrialRequested(study="s", request=request, session=session)


def assigned(
    request: str, trial: int = 0, attempt: int = 0, session: str = "w"
) -> trialbus.TrialAssigned:
    return trialbus.TrialAssigned(
        study="s", trial=trial, attempt=attempt, request=request, session=session, params={"x": 0.5}
    )


def finished(trial: int = 0, attempt: int = 0, state: str = "complete") -> trialbus.TrialFinished:
    return trialbus.TrialFinished(study="s", trial=trial, attempt=attempt, state=state)  # type: ignore[arg-type]


def lost(session: str = "w") -> trialbus.TrainerLost:
    return trialbus.TrainerLost(session=session, kind="worker")


def fold(*events: trialbus.Event) -> Ledger:
    """Return a ledger after events."""
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    return ledger


def test_a_request_waits_until_it_is_answered_and_not_again() -> None:
    assert list(fold(SUBMITTED, requested("r")).requests) == ["r"]
    assert not fold(SUBMITTED, requested("r"), assigned("r"), requested("r")).requests


def test_the_first_end_of_an_attempt_counts() -> None:
    ledger = fold(SUBMITTED, assigned("r"))
    (closed,) = ledger.apply(finished(state="pruned"))
    assert closed.state == "pruned"
    assert ledger.apply(finished(state="complete")) == []


def test_the_end_of_an_attempt_that_was_given_up_closes_nothing() -> None:
    ledger = fold(SUBMITTED, assigned("r"), lost(), assigned("r2", attempt=1, session="v"))
    assert ledger.apply(finished(attempt=0)) == []
    assert ledger.studies["s"].trials.find_running(finished(attempt=1)) is not None


def test_a_lost_worker_voids_its_requests_and_frees_its_trials() -> None:
    ledger = fold(SUBMITTED, requested("r1"), requested("r2", "other"), assigned("r0"), lost())
    assert list(ledger.requests) == ["r2"]
    assert ledger.studies["s"].trials.open[0].is_waiting


def test_a_withdrawn_request_gets_no_trial_and_frees_its_trial() -> None:
    withdrawn = trialbus.RequestWithdrawn(study="s", request="r")
    assert not fold(SUBMITTED, requested("r"), withdrawn).requests
    assert (
        fold(SUBMITTED, requested("r"), assigned("r"), withdrawn)
        .studies["s"]
        .trials.open[0]
        .is_waiting
    )


def test_a_trial_lost_too_often_is_closed_as_lost() -> None:
    ledger = fold(SUBMITTED, assigned("r"), lost(), assigned("r2", attempt=1, session="v"))
    (closed,) = ledger.apply(lost("v"))
    assert (closed.state, closed.cause) == ("failed", "lost")
    assert "study.max_retries=1" in str(closed.error)


def test_a_preempted_trial_waits_for_its_next_attempt() -> None:
    ledger = fold(SUBMITTED, assigned("r"), finished(state="preempted"))
    assert ledger.studies["s"].trials.open[0].is_waiting


@given(st.data())
def test_events_that_are_repeated_later_change_nothing(data: st.DataObject) -> None:
    """After a crash the optimizer reads events again; the ledger has to be the same."""
    history = [
        SUBMITTED,
        requested("a"),
        requested("b"),
        assigned("a", 0),
        assigned("b", 1),
        finished(0),
        requested("c"),
        lost(),
        assigned("c", 1, 1, session="v"),
        finished(1, 1),
    ]
    start = data.draw(st.integers(0, len(history)))
    once, twice = fold(*history), fold(*history, *history[start:])
    if start > 0:  # a study that is submitted again is meant to begin again
        assert twice.studies["s"].trials.open == once.studies["s"].trials.open
    assert twice.requests.keys() <= {"a", "b", "c"} - {"a", "b", "c"} | once.requests.keys()


def test_a_trial_that_is_assigned_to_a_lost_session_waits_for_the_next_attempt() -> None:
    ledger = Ledger()
    for event in (SUBMITTED, requested("r"), lost(), assigned("r")):
        ledger.apply(event)
    assert ledger.studies["s"].trials.open[0].is_waiting


def test_an_assignment_that_arrives_after_a_later_attempt_leaves_its_request_waiting() -> None:
    late, newer = assigned("r1", attempt=0, session="v1"), assigned("r2", attempt=1, session="v2")
    ledger = fold(SUBMITTED, requested("r1", "v1"), requested("r2", "v2"), newer, late)
    trial = ledger.studies["s"].trials.open[0]
    assert (trial.request, trial.attempt) == ("r2", 1)
    assert list(ledger.requests) == ["r1"]
    requester = HandOuts()
    assert (requester.add(newer), requester.add(late)) == (True, False)


def test_of_two_assignments_of_an_attempt_the_first_in_the_log_counts() -> None:
    first, second = assigned("r1", session="v1"), assigned("r2", session="v2")
    requests = (requested("r1", "v1"), requested("r2", "v2"))
    ledger = fold(SUBMITTED, *requests, first, second)
    assert ledger.studies["s"].trials.open[0].request == "r1"
    assert list(ledger.requests) == ["r2"]
    requester = HandOuts()
    assert (requester.add(first), requester.add(second)) == (True, False)


def test_a_decision_that_the_log_overtakes_is_taken_back() -> None:
    ledger = fold(SUBMITTED, requested("r1", "v1"), requested("r2", "v2"))
    ledger.decide(assigned("r2", session="v2"), 2)
    assert list(ledger.requests) == ["r1"]
    for event in (assigned("r1", session="v1"), assigned("r2", session="v2")):
        ledger.apply(event)
    assert ledger.studies["s"].trials.open[0].request == "r1"
    assert list(ledger.requests) == ["r2"]


def test_an_earlier_attempt_that_the_log_has_before_the_decision_is_over() -> None:
    ledger = fold(SUBMITTED, requested("r1", "v1"), requested("r2", "v2"))
    ledger.decide(assigned("r2", attempt=1, session="v2"), 2)
    for event in (
        assigned("r1", attempt=0, session="v1"),  # runs, and ends when the next is heard
        assigned("r2", attempt=1, session="v2"),
    ):
        ledger.apply(event)
    trial = ledger.studies["s"].trials.open[0]
    assert (trial.request, trial.attempt) == ("r2", 1)
    assert not ledger.requests


def test_of_two_answers_to_a_request_the_first_in_the_log_counts() -> None:
    first, second = assigned("r1", 0), assigned("r1", 1)
    ledger = fold(SUBMITTED, requested("r1"), first, second)
    assert list(ledger.studies["s"].trials.open) == [0]
    assert not ledger.requests
    requester = HandOuts()
    assert (requester.add(first), requester.add(second)) == (True, False)
    assert requester.add(assigned("r2", 1))  # the attempt of the void answer is free


def test_a_decision_whose_request_the_log_answers_otherwise_is_taken_back() -> None:
    ledger = fold(SUBMITTED, requested("r1"))
    ledger.decide(assigned("r1", 1), 2)
    (end,) = ledger.apply(assigned("r1", 0))
    assert (end.trial.number, end.state) == (1, "waiting")
    trials = ledger.studies["s"].trials
    assert not trials.open[0].is_waiting
    assert ledger.apply(assigned("r1", 1)) == []
    assert not ledger.requests
    assert trials.open[1].is_waiting
    ledger.apply(requested("r2"))
    ledger.decide(assigned("r2", 1, trials.find_next_attempt(1)), 3)
    assert not trials.open[1].is_waiting


def test_a_request_that_is_withdrawn_before_its_answer_is_void_stays_withdrawn() -> None:
    ledger = fold(SUBMITTED, requested("r1", "v1"), requested("r2", "v2"))
    ledger.decide(assigned("r2", session="v2"), 2)
    ledger.apply(trialbus.RequestWithdrawn(study="s", request="r2"))
    ledger.apply(assigned("r1", session="v1"))
    ledger.apply(assigned("r2", session="v2"))
    assert not ledger.requests
    assert ledger.studies["s"].trials.open[0].is_waiting  # the next attempt ends that of r1
