"""What a viewer knows of a study, from the events it has seen so far."""

from __future__ import annotations

import io
import math
from typing import Any

from rich.console import Console

import trialbus
from trialbus import events
from trialbus_services.monitor.summary import print_summary
from trialbus_services.monitor.terminal import TerminalView, sparkline
from trialbus_services.monitor.view import StudyView

STARTED = trialbus.StudyStarted(
    study="s", submission="1", directions=["maximize"], metrics=["accuracy"], n_trials=10, n_done=2
)


def assigned(trial: int, attempt: int = 0) -> trialbus.TrialAssigned:
    return trialbus.TrialAssigned(
        study="s", trial=trial, attempt=attempt, request="r", session="w", params={"lr": 0.1}
    )


def evaluation(
    trial: int, step: int, value: float, attempt: int = 0
) -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(
        study="s", trial=trial, attempt=attempt, step=step, metrics={"accuracy": value, "loss": 1.0}
    )


def finished(trial: int, state: str = "complete", attempt: int = 0, **more: Any) -> events.Event:
    return trialbus.TrialFinished(study="s", trial=trial, attempt=attempt, state=state, **more)  # type: ignore[arg-type]


def view(*seen: events.AnyEvent) -> StudyView:
    made = StudyView("s", clock=lambda: 100.0)
    for event in seen:
        made.apply(event)
    return made


def test_it_counts_what_ended_and_what_was_done_before() -> None:
    seen = view(
        STARTED, assigned(2), assigned(3), finished(2), finished(3, "pruned"), finished(3, "pruned")
    )
    assert (seen.n_done, dict(seen.counts), seen.running) == (4, {"complete": 1, "pruned": 1}, {})


def test_it_keeps_the_best_value_by_the_direction_and_passes_over_nan() -> None:
    rising = view(
        STARTED, assigned(2), *(evaluation(2, s, v) for s, v in enumerate([0.5, math.nan, 0.4]))
    )
    assert rising.best is not None
    assert (rising.best.value, rising.best.number) == (0.5, 2)
    falling = trialbus.StudyStarted(
        study="s", submission="1", directions=["minimize"], metrics=["accuracy"], n_trials=10
    )
    low = view(falling, assigned(2), evaluation(2, 0, 0.5), evaluation(2, 1, 0.4)).best
    assert low is not None
    assert low.value == 0.4


def test_a_lost_trial_leaves_and_comes_back_as_another_attempt() -> None:
    lost = trialbus.TrainerLost(study="s", session="x", kind="trainer", trial=2, attempt=0)
    seen = view(STARTED, assigned(2), lost)
    assert not seen.running
    assert seen.notes[-1] == "trial 2 was lost; it is handed out again"
    seen.apply(assigned(2, attempt=1))
    seen.apply(evaluation(2, 0, 0.9, attempt=0))
    assert seen.running[2].step is None
    seen.apply(finished(2, attempt=0))
    assert 2 in seen.running


def test_a_preempted_trial_is_not_counted() -> None:
    assert view(STARTED, assigned(2), finished(2, "preempted")).n_done == 2


def test_one_that_joins_late_shows_what_it_sees() -> None:
    seen = view(evaluation(7, 3, 0.5))
    assert (seen.running[7].step, seen.n_trials) == (3, None)
    seen.apply(finished(7))
    seen.apply(evaluation(7, 4, 0.5))
    assert 7 not in seen.running


def test_another_study_and_unknown_events_change_nothing() -> None:
    other = trialbus.TrialFinished(study="other", trial=0, state="failed")
    unknown = trialbus.UnknownEvent(topic="x_new/s/1", data={})
    assert view(STARTED, other, unknown).n_done == 2


def test_the_optimizer_has_the_last_word_on_the_counts() -> None:
    end = trialbus.StudyFinished(
        study="s",
        submission="1",
        reason="exhausted",
        counts=events.TrialCounts(complete=6, pruned=3, failed=1),
        best_trials=[events.BestTrial(number=4, values=[0.99], params={"lr": 0.2})],
    )
    seen = view(STARTED, assigned(2), end)
    assert (seen.n_done, seen.running, seen.best and seen.best.value) == (10, {}, 0.99)


def test_a_terminal_shows_progress_best_and_running_trials() -> None:
    console = Console(record=True, width=100, height=30, force_terminal=True, file=io.StringIO())
    seen = view(
        STARTED,
        assigned(2),
        assigned(3),
        evaluation(2, 4, 0.75),
        finished(3, "failed", error="a\nboom"),
    )
    with TerminalView(seen, console=console) as terminal:
        terminal.update()
        shown = console.export_text()
    assert "trial 3 failed: boom" in shown
    assert "3/10 trials" in shown
    assert "best 0.75 accuracy in trial 2" in shown
    assert "accuracy 0.75" in shown


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    out = io.StringIO()
    seen = view(STARTED, assigned(2), evaluation(2, 4, 0.75))
    with TerminalView(seen, console=Console(file=out, width=100)) as terminal:
        terminal.update()
        seen.apply(finished(2))
        terminal.update()
    assert out.getvalue().splitlines() == [
        "resumed with 2 of 10 trials done",
        "s: 2/10 trials done, 1 running, best 0.75 in trial 2",
        "trial 2 complete: 0.75",
    ]


def test_a_hundred_running_trials_fit_the_screen() -> None:
    console = Console(record=True, width=80, height=24, force_terminal=True, file=io.StringIO())
    with TerminalView(view(STARTED, *map(assigned, range(100))), console=console) as terminal:
        terminal.update()
        shown = console.export_text()
    assert "and 84 more" in shown


def test_names_from_users_are_no_markup() -> None:
    out = io.StringIO()
    end = trialbus.StudyFinished(study="[red]s[/]", submission="1", reason="failed", error="[/x]")
    console = Console(file=out, width=100)
    print_summary(console, end, metrics=["m"], wall_s=1.0, report=None)
    assert "[red]s[/]" in out.getvalue()
    assert "error: [/x]" in out.getvalue()


def test_a_sparkline_goes_from_its_least_to_its_greatest_value() -> None:
    assert sparkline([0.0, 0.5, 1.0, math.nan, math.inf]) == "▁▄█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([]) == ""
