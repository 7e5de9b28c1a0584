"""State of a study in a viewer, folded from the events so far."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

import trialbus
from trialbus.messages import events
from trialbus.study.spec import Direction
from trialbus_services.views.study_view import StudyView

STARTED = trialbus.StudyStarted(
    study="s", submission="1", directions=["maximize"], metrics=["accuracy"], n_trials=10, n_done=2
)


def spec(aggregate: str = "last", **more: Any) -> trialbus.StudySpec:
    return trialbus.StudySpec(
        name="s",
        params={"lr": trialbus.FloatParam(low=0.0, high=1.0)},
        objectives=(trialbus.Objective(metric="accuracy", aggregate=aggregate),),
        n_trials=10,
        **more,
    )


def submitted(made: trialbus.StudySpec) -> trialbus.StudySubmitted:
    return trialbus.StudySubmitted(study="s", submission="1", spec=made)


def assigned(trial: int, attempt: int = 0, session: str = "w") -> trialbus.TrialAssigned:
    return trialbus.TrialAssigned(
        study="s",
        trial=trial,
        attempt=attempt,
        request=f"r{trial}.{attempt}",
        session=session,
        params={"lr": 0.1},
    )


def evaluation(
    trial: int, step: int, value: float, attempt: int = 0
) -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(
        study="s", trial=trial, attempt=attempt, step=step, metrics={"accuracy": value, "loss": 1.0}
    )


def finished(trial: int, state: str = "complete", attempt: int = 0, **more: Any) -> events.Event:
    return trialbus.TrialFinished(study="s", trial=trial, attempt=attempt, state=state, **more)  # type: ignore[arg-type]


def lost(trial: int, attempt: int = 0) -> trialbus.TrainerLost:
    return trialbus.TrainerLost(
        study="s", session="x", kind="trainer", trial=trial, attempt=attempt
    )


def ended(submission: str = "1") -> trialbus.StudyFinished:
    return trialbus.StudyFinished(
        study="s",
        submission=submission,
        reason="exhausted",
        counts=events.TrialCounts(complete=6, pruned=3, failed=1),
        best_trials=[events.BestTrial(number=4, values=[0.99], params={"lr": 0.2})],
    )


def view(*seen: events.AnyEvent) -> StudyView:
    made = StudyView("s", clock=lambda: 100.0)
    for event in seen:
        made.apply(event)
    return made


def told(seen: StudyView) -> list[str]:
    return [note.text for note in seen.take_notes()]


def test_it_counts_what_ended_and_what_was_done_before() -> None:
    seen = view(
        STARTED,
        assigned(2),
        assigned(3),
        evaluation(2, 0, 0.5),
        finished(2),
        finished(3, "pruned"),
        finished(3, "pruned"),
    )
    assert (seen.n_done, dict(seen.counts), seen.running) == (4, {"complete": 1, "pruned": 1}, {})


def test_a_trial_that_never_reported_the_objective_failed_whatever_its_trainer_says() -> None:
    misspelt = trialbus.EvaluationComplete(study="s", trial=3, step=0, metrics={"acuracy": 1.0})
    seen = view(STARTED, assigned(2), assigned(3), assigned(4), misspelt)
    (end,) = seen.apply(finished(2))
    assert (end.cause, end.error) == ("failed", "accuracy was never reported")
    seen.apply(finished(3))
    seen.apply(finished(4, values=[0.5]))
    assert told(seen)[1:] == [
        "trial 2 failed: accuracy was never reported",
        "trial 3 failed: accuracy was never reported",
        "trial 4 complete: 0.5",
    ]
    assert dict(seen.counts) == {"failed": 2, "complete": 1}


def test_a_later_attempt_keeps_what_an_earlier_one_reported() -> None:
    seen = view(STARTED, assigned(2), evaluation(2, 0, 0.5), lost(2), assigned(2, attempt=1))
    seen.apply(finished(2, attempt=1))
    assert dict(seen.counts) == {"complete": 1}


def test_a_view_that_joined_in_the_middle_of_a_trial_does_not_call_it_failed() -> None:
    assert dict(view(STARTED, finished(2)).counts) == {"complete": 1}


def test_each_event_seen_twice_changes_nothing_but_their_count() -> None:
    stream = [
        submitted(spec()),
        STARTED,
        assigned(2),
        evaluation(2, 0, 0.5),
        evaluation(2, 1, 0.6),
        lost(2),
        assigned(2, 1),
        evaluation(2, 0, 0.7, 1),
        finished(2, attempt=1),
        assigned(3),
        evaluation(3, 0, 0.4),
    ]
    once, twice = view(*stream), view(*(event for event in stream for _ in range(2)), *stream)
    for seen in (once, twice):
        assert (seen.n_done, seen.n_lost, seen.n_retried, seen.best and seen.best.value) == (
            3,
            1,
            1,
            0.7,
        )
        assert list(seen.running) == [3]
        assert seen.running[3].curve == {0: 0.4}
    assert (once.n_events, twice.n_events) == (11, 33)
    assert told(once) == told(twice)


@pytest.mark.parametrize(("direction", "best"), [("maximize", 0.5), ("minimize", 0.4)])
def test_while_no_trial_is_complete_the_best_is_that_of_the_running_ones(
    direction: Direction, best: float
) -> None:
    started = trialbus.StudyStarted(
        study="s", submission="1", directions=[direction], metrics=["accuracy"], n_trials=10
    )
    curve = [evaluation(2, step, value) for step, value in enumerate([0.5, math.nan, 0.4])]
    seen = view(started, assigned(2), *curve)
    assert seen.best is not None
    assert (seen.best.value, seen.best.number, seen.best.params) == (best, 2, {"lr": 0.1})


def test_a_complete_trial_is_best_before_a_better_one_that_runs_or_was_pruned() -> None:
    seen = view(
        STARTED,
        *(assigned(number) for number in (2, 3, 4)),
        *(evaluation(number, 0, value) for number, value in ((2, 0.5), (3, 0.9), (4, 0.8))),
        finished(2),
        finished(3, "pruned"),
    )
    assert seen.best is not None
    assert (seen.best.value, seen.best.number) == (0.5, 2)


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [("last", 0.4), ("best", 0.8), ("mean_last(2)", 0.6), ("at_step(0)", 0.2)],
)
def test_a_complete_trial_has_the_value_that_the_rules_of_the_study_give(
    aggregate: str, value: float
) -> None:
    curve = [evaluation(2, step, reported) for step, reported in enumerate([0.2, 0.8, 0.4])]
    seen = view(submitted(spec(aggregate)), STARTED, assigned(2), *curve, finished(2))
    assert seen.best is not None
    assert seen.best.value == pytest.approx(value)


def test_values_that_a_trainer_gives_itself_come_before_its_evaluations() -> None:
    seen = view(STARTED, assigned(2), evaluation(2, 0, 0.5), finished(2, values=[0.7, 3.0]))
    assert seen.best is not None
    assert seen.best.value == 0.7
    assert told(seen)[-1] == "trial 2 complete: 0.7"


def test_a_lost_trial_leaves_and_comes_back_as_another_attempt() -> None:
    seen = view(STARTED, assigned(2), lost(2))
    assert not seen.running
    assert told(seen)[-1] == "trial 2 was lost; it is assigned again"
    for late in (assigned(2), evaluation(2, 0, 0.9), finished(2)):
        seen.apply(late)
    assert (seen.running, seen.n_done) == ({}, 2)
    for event in (assigned(2, attempt=1), evaluation(2, 0, 0.9), finished(2)):
        seen.apply(event)
    assert (seen.running[2].attempt, seen.running[2].step) == (1, None)
    assert (seen.n_lost, seen.n_retried, seen.n_done) == (1, 1, 2)


def test_a_trial_lost_once_too_often_is_failed() -> None:
    seen = view(submitted(spec(max_retries=1)), STARTED, assigned(2, 1), lost(2, 1))
    assert (seen.counts["failed"], told(seen)[-1]) == (
        1,
        "trial 2 failed: lost 2 times (study.max_retries=1)",
    )


def test_a_lost_worker_takes_all_its_trials_along() -> None:
    gone = trialbus.TrainerLost(session="a", kind="worker")
    trials = [assigned(2, session="a"), assigned(3, session="b"), assigned(4, session="a")]
    assert list(view(STARTED, *trials, gone).running) == [3]


def test_a_trial_whose_request_was_withdrawn_is_run_by_nobody() -> None:
    taken_back = trialbus.RequestWithdrawn(study="s", request="r2.0")
    assert list(view(STARTED, assigned(2), assigned(3), taken_back).running) == [3]


def test_a_preempted_trial_leaves_and_is_not_counted() -> None:
    seen = view(STARTED, assigned(2), finished(2, "preempted"))
    assert (seen.n_done, seen.running) == (2, {})


def test_one_that_joins_late_shows_what_it_sees() -> None:
    seen = view(evaluation(7, 3, 0.5), trialbus.TrialStarted(study="s", trial=8))
    assert (seen.running[7].step, seen.n_trials, seen.best) == (3, None, None)
    seen.apply(finished(7))
    seen.apply(finished(9, "failed"))
    seen.apply(evaluation(7, 4, 0.5))
    assert (list(seen.running), seen.n_done, seen.left_s) == ([8], 2, None)


def test_another_study_and_unknown_events_change_nothing() -> None:
    other = trialbus.TrialFinished(study="other", trial=0, state="failed")
    unknown = trialbus.UnknownEvent(topic="x_new/s/1", data={})
    seen = view(STARTED, other, unknown)
    assert (seen.n_done, seen.n_events) == (2, 1)


def test_the_optimizer_has_the_last_word_and_what_comes_after_it_is_no_news() -> None:
    seen = view(STARTED, assigned(2), ended(), evaluation(2, 0, 1.0), finished(2))
    assert (seen.n_done, seen.running, seen.best and seen.best.value) == (10, {}, 0.99)
    assert (seen.state, seen.finished and seen.finished.reason) == ("finished", "exhausted")


def test_a_study_that_is_submitted_again_runs_again() -> None:
    again = trialbus.StudyStarted(
        study="s",
        submission="2",
        directions=["maximize"],
        metrics=["accuracy"],
        n_trials=20,
        n_done=10,
    )
    seen = view(STARTED, ended(), again, ended())
    assert (seen.state, seen.n_done, seen.n_trials, seen.finished) == ("running", 10, 20, None)


def test_the_best_trial_of_an_earlier_run_counts_while_the_storage_has_the_trial() -> None:
    again = msgspec.structs.replace(STARTED, submission="2", n_done=10)
    emptied = msgspec.structs.replace(STARTED, submission="2", n_done=0)
    resumed, restarted = view(STARTED, ended(), again), view(STARTED, ended(), emptied)
    assert resumed.best is not None
    assert resumed.best.value == 0.99
    assert restarted.best is None


def test_the_time_left_of_a_resumed_study_is_unknown_until_a_trial_of_this_run_has_ended() -> None:
    now = [0.0]
    seen = StudyView("s", clock=lambda: now[0])
    for event in (submitted(spec()), STARTED, finished(2), finished(3)):  # and an interrupt
        seen.apply(event)
    seen.apply(trialbus.StudySubmitted(study="s", submission="2", spec=spec()))
    now[0] = 5.0
    assert seen.left_s is None
    seen.apply(msgspec.structs.replace(STARTED, submission="2", n_done=4))
    assert seen.left_s is None
    now[0] = 10.0
    seen.apply(finished(4))
    assert seen.left_s == pytest.approx(25.0)


def test_the_time_left_follows_the_pace_and_stands_still_at_the_end() -> None:
    now = [0.0]
    seen = StudyView("s", clock=lambda: now[0])
    seen.apply(STARTED)
    assert seen.left_s is None
    now[0] = 10.0
    for number in (2, 3):
        seen.apply(finished(number))
    assert seen.left_s == pytest.approx(30.0)
    seen.apply(ended())
    now[0] = 99.0
    assert (seen.elapsed_s, seen.left_s) == (10.0, None)


def test_a_failed_trial_is_told_with_the_last_line_of_its_error() -> None:
    seen = view(finished(1, "failed", error="Traceback\n  boom: 1\n"), finished(2, "failed"))
    assert told(seen) == ["trial 1 failed: boom: 1", "trial 2 failed: no reason given"]
    assert told(seen) == []


def test_a_pruned_trial_is_told_with_the_step_that_was_judged() -> None:
    pruned = trialbus.Prune(study="s", trial=2, step=5)
    curve = [evaluation(2, step, 0.25) for step in range(7)]
    seen = view(STARTED, assigned(2), *curve, pruned, finished(2, "pruned"))
    assert told(seen)[-1] == "trial 2 pruned at step 5: 0.25"


def test_what_is_kept_of_a_curve_and_of_notes_is_bounded() -> None:
    seen = view(STARTED, *(evaluation(2, step, float(step)) for step in range(1000)))
    assert len(seen.running[2].curve) < 300
    assert max(seen.running[2].curve) == 999
    for number in range(3, 3000):
        seen.apply(finished(number))
    assert len(seen.take_notes()) <= 1000
