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


def closed(trial: int, state: str = "complete", attempt: int = 0, **more: Any) -> events.Event:
    return trialbus.TrialClosed(study="s", trial=trial, attempt=attempt, state=state, **more)  # type: ignore[arg-type]


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


def test_it_counts_what_the_optimizer_recorded_and_what_was_done_before() -> None:
    seen = view(
        STARTED,
        assigned(2),
        assigned(3),
        evaluation(2, 0, 0.5),
        finished(2),
        closed(2),
        closed(3, "pruned"),
        closed(3, "pruned"),
    )
    assert (seen.n_done, dict(seen.counts), seen.running) == (4, {"complete": 1, "pruned": 1}, {})


def test_a_training_that_ended_is_not_counted_before_its_verdict_and_then_as_the_verdict_is() -> (
    None
):
    seen = view(STARTED, assigned(2), evaluation(2, 0, 0.5), finished(2))
    assert (list(seen.ended), seen.running, dict(seen.counts)) == ([2], {}, {})
    nan = "study.constraints[0] 'size <= 10' is nan"
    seen.apply(closed(2, "failed", cause="exception", error=nan))
    assert (seen.ended, dict(seen.counts), seen.best) == ({}, {"failed": 1}, None)
    assert told(seen)[1:] == [f"trial 2 failed: {nan}"]


def test_the_counts_of_the_optimizer_replace_those_of_a_view_that_missed_verdicts() -> None:
    counts = [events.TrialCounts(complete=n, failed=3) for n in range(3)]
    seen = view(STARTED, closed(7, counts=counts[2]), closed(6, counts=counts[1]))
    assert (dict(seen.counts), seen.n_done) == ({"complete": 2, "failed": 3}, 5)


def test_a_view_begins_from_what_is_recorded() -> None:
    best = events.BestTrial(number=4, values=[0.347], params={"lr": 0.2})
    counts = events.TrialCounts(complete=3, pruned=4)
    begun = msgspec.structs.replace(
        STARTED, n_done=7, counts=counts, best_trials=[best], elapsed_s=50.0
    )
    seen = view(begun)
    assert (seen.n_done, dict(seen.counts)) == (7, {"complete": 3, "pruned": 4})
    assert seen.best is not None
    assert (seen.best.value, seen.best.number, seen.best.params) == (0.347, 4, {"lr": 0.2})
    assert seen.elapsed_s == 50.0
    end = msgspec.structs.replace(ended(), at=begun.at + 7.0)
    seen.apply(end)
    assert seen.elapsed_s == pytest.approx(57.0)


def test_a_submission_that_is_refused_adds_no_time_to_that_of_the_runs_before() -> None:
    first_end = msgspec.structs.replace(ended(), at=STARTED.at + 7.0)
    again = msgspec.structs.replace(submitted(spec()), submission="2")
    refused = msgspec.structs.replace(ended("2"), at=STARTED.at + 60.0)
    assert view(STARTED, first_end, again, refused).elapsed_s == pytest.approx(7.0)


def test_a_study_with_more_trials_than_it_is_to_have_is_not_told_as_14_of_5() -> None:
    begun = msgspec.structs.replace(STARTED, n_trials=5, n_done=14)
    assert told(view(begun)) == ["resumed with 14 trials done, and study.n_trials=5"]


def test_a_trial_that_violates_a_constraint_is_complete_and_never_best() -> None:
    seen = view(STARTED, closed(2, values=[0.5]), closed(3, values=[0.9], is_feasible=False))
    assert seen.best is not None
    assert seen.best.value == 0.5
    assert told(seen)[-1] == "trial 3 complete: 0.9, which violates a constraint"


def test_reports_without_the_objective_are_told_once_with_the_nearest_name() -> None:
    misspelt = [
        trialbus.EvaluationComplete(study="s", trial=n, step=0, metrics={"acuracy": 1.0, "loss": 2})
        for n in (2, 3)
    ]
    seen = view(STARTED, assigned(2), assigned(3), *misspelt)
    [note] = told(seen)[1:]
    assert note == (
        "'accuracy' is missing in the report of trial 2 at step 0, which has: acuracy, loss; "
        "did you mean 'acuracy'?"
    )
    late = view(STARTED, assigned(2), assigned(3), evaluation(2, 0, 0.5), misspelt[1])
    assert told(late)[1:] == []


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("killed", "trial 2 was killed; it is assigned again"),
        ("out_of_memory", "trial 2 ran out of memory; it is assigned again"),
        ("timed_out", "trial 2 timed out; it is assigned again"),
        ("silent", "trial 2 was silent for too long; it is assigned again"),
        ("exception", "trial 2 failed; it is assigned again"),
    ],
)
def test_an_attempt_that_is_followed_by_another_is_told_with_its_cause(
    cause: events.FailureCause, text: str
) -> None:
    study = submitted(spec(retries={cause: 1}))
    seen = view(study, STARTED, assigned(2), finished(2, "failed", cause=cause))
    assert told(seen)[1:] == [text]
    assert (seen.running, seen.ended, dict(seen.counts)) == ({}, {}, {})


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
        closed(2, attempt=1, values=[0.7]),
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
    assert (once.n_events, twice.n_events) == (12, 36)
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
    assert seen.best.is_running


def test_a_complete_trial_is_best_before_a_better_one_that_runs_or_was_pruned() -> None:
    seen = view(
        STARTED,
        *(assigned(number) for number in (2, 3, 4)),
        *(evaluation(number, 0, value) for number, value in ((2, 0.5), (3, 0.9), (4, 0.8))),
        closed(2, values=[0.5]),
        closed(3, "pruned"),
    )
    assert seen.best is not None
    assert (seen.best.value, seen.best.number, seen.best.is_running) == (0.5, 2, False)


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


def test_a_trial_lost_once_too_often_is_not_told_as_assigned_again() -> None:
    seen = view(submitted(spec(max_retries=0)), STARTED, assigned(2), lost(2))
    assert (list(seen.ended), told(seen)[1:]) == ([2], [])
    seen.apply(closed(2, "failed", cause="lost", error="lost 1 times (study.max_retries=0)"))
    assert told(seen) == ["trial 2 failed: lost 1 times (study.max_retries=0)"]


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
    seen.apply(closed(7))
    seen.apply(closed(9, "failed"))
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
    for event in (submitted(spec()), STARTED, closed(2), closed(3)):  # and an interrupt
        seen.apply(event)
    seen.apply(trialbus.StudySubmitted(study="s", submission="2", spec=spec()))
    now[0] = 5.0
    assert seen.left_s is None
    seen.apply(msgspec.structs.replace(STARTED, submission="2", n_done=4))
    assert seen.left_s is None
    now[0] = 10.0
    seen.apply(closed(4))
    assert seen.left_s == pytest.approx(25.0)


def test_the_time_left_follows_the_pace_and_stands_still_at_the_end() -> None:
    now = [0.0]
    seen = StudyView("s", clock=lambda: now[0])
    seen.apply(STARTED)
    assert seen.left_s is None
    now[0] = 10.0
    for number in (2, 3):
        seen.apply(closed(number))
    assert seen.left_s == pytest.approx(30.0)
    seen.apply(msgspec.structs.replace(ended(), at=STARTED.at + 10.0))
    now[0] = 99.0
    assert (seen.elapsed_s, seen.left_s) == (10.0, None)


def test_of_equal_trials_the_first_is_the_best_whichever_ends_first() -> None:
    seen = view(STARTED, assigned(2), assigned(3), closed(3, values=[0.9]), closed(2, values=[0.9]))
    assert seen.best is not None
    assert seen.best.number == 2


def test_a_failed_trial_is_told_with_the_last_line_of_its_error() -> None:
    seen = view(closed(1, "failed", error="Traceback\n  boom: 1\n"), closed(2, "failed"))
    assert [line.splitlines()[0] for line in told(seen)] == [
        "trial 1 failed: boom: 1",
        "trial 2 failed: no reason given",
    ]
    assert told(seen) == []


def test_the_first_error_of_several_lines_is_quoted_and_the_next_run_quotes_again() -> None:
    error = "usage: train.py [-h]\ntrain.py: error: no --x (the trainer exited with code 2)"
    quote = "\n  | usage: train.py [-h]"
    first = "trial {} failed: train.py: error: no --x (the trainer exited with code 2)"
    seen = view(*(closed(number, "failed", error=error) for number in (1, 2)))
    assert told(seen) == [first.format(1) + quote, first.format(2)]
    for event in (ended(), msgspec.structs.replace(STARTED, submission="again", n_done=9)):
        seen.apply(event)
    seen.apply(closed(3, "failed", error=error))
    assert told(seen)[-1] == first.format(3) + quote


def test_an_attempt_that_failed_and_is_followed_by_another_is_told_with_its_error() -> None:
    study = submitted(spec(retries={"exception": 1}))
    failed = finished(2, "failed", cause="exception", error="Traceback\nValueError: boom")
    seen = view(study, STARTED, assigned(2), failed)
    text = "trial 2 failed: ValueError: boom; it is assigned again\n  | Traceback"
    assert told(seen)[-1] == text


def test_a_pruned_trial_is_told_with_the_reason_that_the_optimizer_recorded() -> None:
    reason = "step 1: 0.243 < median 0.271 of 11 trials"
    seen = view(
        STARTED, closed(2, "pruned", reason=reason), closed(3, "pruned", reason="ada: slow")
    )
    assert told(seen)[1:] == [f"trial 2 pruned at {reason}", "trial 3 pruned: ada: slow"]


def test_a_pruned_trial_without_a_reason_is_told_with_the_step_that_was_judged() -> None:
    pruned = trialbus.Prune(study="s", trial=2, step=5)
    curve = [evaluation(2, step, step / 10) for step in range(7)]
    seen = view(STARTED, assigned(2), *curve, pruned, finished(2, "pruned"), closed(2, "pruned"))
    assert told(seen)[-1] == "trial 2 pruned at step 5: 0.5"


def test_what_is_kept_of_a_curve_and_of_notes_is_bounded() -> None:
    seen = view(STARTED, *(evaluation(2, step, float(step)) for step in range(1000)))
    assert len(seen.running[2].curve) < 300
    assert max(seen.running[2].curve) == 999
    for number in range(3, 3000):
        seen.apply(closed(number))
    assert len(seen.take_notes()) <= 1000


def test_an_attempt_takes_over_the_curve_before_its_first_step() -> None:
    before = [evaluation(0, step, 0.5 + step / 10) for step in range(5)]
    seen = view(submitted(spec()), STARTED, assigned(0), *before, lost(0), assigned(0, 1))
    seen.apply(evaluation(0, 2, 0.1, attempt=1))
    running = seen.running[0]
    assert running.curve == {0: 0.5, 1: 0.6, 2: 0.1}
    assert running.best == 0.6
