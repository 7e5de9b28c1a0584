"""View of a study on a terminal, and lines of text without a terminal."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import trialbus
from trialbus.messages import events
from trialbus_services.views.formats import format_clock, format_done, strip_control_characters
from trialbus_services.views.study_view import StudyView
from trialbus_services.views.summary import print_report, print_summary
from trialbus_services.views.terminal_view import TerminalView, draw_sparkline


class Stage:
    """A view, a clock that only the test advances, and the drawn text."""

    def __init__(self, *, terminal: bool = True, width: int = 100, height: int = 30) -> None:
        self.now = 100.0
        self.out = io.StringIO()
        self.view = StudyView("s", clock=lambda: self.now)
        self.console = Console(
            record=True,
            width=width,
            height=height,
            force_terminal=terminal,
            file=self.out,
            _environ={},
        )
        self.terminal = TerminalView(self.view, console=self.console, clock=lambda: self.now)

    def see(self, *seen: events.Event) -> None:
        for event in seen:
            self.view.apply(event)
            self.terminal.update()

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


def started(n_trials: int = 10, n_done: int = 0) -> events.StudyStarted:
    return trialbus.StudyStarted(
        study="s",
        submission="1",
        directions=["maximize"],
        metrics=["val/accuracy"],
        n_trials=n_trials,
        n_done=n_done,
    )


def assigned(trial: int, **more: Any) -> events.TrialAssigned:
    return trialbus.TrialAssigned(
        study="s", trial=trial, request="r", session="w", params={"lr": 0.1}, **more
    )


def evaluation(trial: int, step: int, value: float) -> events.EvaluationComplete:
    return trialbus.EvaluationComplete(
        study="s", trial=trial, step=step, metrics={"loss": 1.5, "val/accuracy": value}
    )


def closed(trial: int, state: str = "complete", **more: Any) -> events.Event:
    return trialbus.TrialClosed(study="s", trial=trial, state=state, **more)  # type: ignore[arg-type]


def ended(reason: events.FinishReason = "exhausted", **more: Any) -> events.StudyFinished:
    return trialbus.StudyFinished(study="s", submission="1", reason=reason, **more)


BEST = events.BestTrial(number=4, values=[0.9875], params={"lr": 0.25, "optimizer": "adamw"})


def test_a_terminal_shows_progress_best_and_running_trials() -> None:
    stage = Stage()
    with stage.terminal:
        stage.view.apply(started())
        stage.now += 65
        for event in (
            assigned(2, slot=1, budget=20),
            assigned(3),
            evaluation(2, 4, 0.75),
            closed(3, "failed", error="a\nboom"),
        ):
            stage.view.apply(event)
        stage.terminal.update()
        shown = stage.console.export_text()
    assert "trial 3 failed: boom" in shown
    assert "1/10 trials  1:05, about" in shown
    assert "1 running   0 complete   0 pruned   1 failed" in shown
    assert "best 0.75 val/accuracy in running trial 2   lr=0.1" in shown
    assert re.search(r"2 +1 +5/20 +0\.75 +▁ +loss 1\.5", shown)


def test_before_the_optimizer_answers_it_says_so() -> None:
    stage = Stage()
    with stage.terminal:
        stage.terminal.update()
    assert "waiting for the optimizer" in stage.console.export_text()


def test_a_trial_that_was_handed_out_again_or_told_to_stop_is_marked() -> None:
    stage = Stage()
    with stage.terminal:
        for event in (
            started(),
            assigned(2, attempt=1),
            trialbus.Prune(study="s", trial=2, attempt=1, step=3),
        ):
            stage.view.apply(event)
        stage.terminal.update()
    assert re.search(r"2 \(attempt 1\) +0 +stopping", stage.console.export_text())


def test_it_is_drawn_at_most_eight_times_a_second() -> None:
    stage = Stage()
    with stage.terminal:
        stage.see(started(n_trials=1000), assigned(0))
        before = len(stage.out.getvalue())
        stage.see(*(evaluation(0, step, 0.5) for step in range(500)))
        assert len(stage.out.getvalue()) == before
        stage.now += 0.125
        stage.see(evaluation(0, 500, 0.5))
        assert len(stage.out.getvalue()) > before


def test_where_drawing_is_slow_it_is_drawn_less_often() -> None:
    stage = Stage()

    def slow() -> float:
        stage.now += 0.1
        return stage.now

    terminal = TerminalView(stage.view, console=stage.console, clock=slow)
    with terminal:
        terminal.update()
        before = len(stage.out.getvalue())
        for _ in range(8):
            terminal.update()
        assert len(stage.out.getvalue()) == before
        terminal.update()
        assert len(stage.out.getvalue()) > before


def test_what_ended_since_the_last_drawing_is_told_at_the_end_too() -> None:
    stage = Stage()
    with stage.terminal:
        stage.see(started(), closed(0), closed(1, "pruned"))
    shown = stage.console.export_text()
    assert "trial 0 complete" in shown
    assert "trial 1 pruned" in shown


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10)])
def test_a_hundred_running_trials_fit_the_screen(width: int, height: int) -> None:
    stage = Stage(width=width, height=height)
    with stage.terminal:
        for event in (started(n_trials=200), *map(assigned, range(100))):
            stage.view.apply(event)
        for number in range(100):
            stage.view.apply(evaluation(number, 0, 0.5))
        stage.terminal.update()
        shown = stage.console.export_text().splitlines()
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    assert f"and {100 - (height - 8)} more" in shown[-1]


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    stage = Stage(terminal=False)
    with stage.terminal:
        stage.see(
            started(n_done=2),
            assigned(2),
            evaluation(2, 4, 0.75),
            closed(2, values=[0.75]),
            closed(3),
        )
    assert stage.lines() == [
        "resumed with 2 of 10 trials done",
        "s: 2/10 trials done, 0 running, no value yet",
        "trial 2 complete: 0.75",
        "trial 3 complete",
        "s: 4/10 trials done, 0 running, best 0.75 in trial 2, about 0:00 left",
    ]


def test_a_training_that_ended_is_counted_until_its_verdict_arrives() -> None:
    stage = Stage(terminal=False)
    with stage.terminal:
        stage.see(
            started(), assigned(2), trialbus.TrialFinished(study="s", trial=2, state="complete")
        )
        stage.now += 10
        stage.see(assigned(3))
        stage.see(closed(2, "failed", error="the metric is NaN"))
    assert stage.lines()[1:] == [
        "s: 0/10 trials done, 1 running, 1 ended, no value yet",
        "trial 2 failed: the metric is NaN",
    ]


def test_plain_progress_is_told_for_every_tenth_of_the_study() -> None:
    stage = Stage(terminal=False)
    with stage.terminal:
        stage.see(started(n_trials=200), *map(closed, range(200)))
    assert sum("trials done" in line for line in stage.lines()) == 11


def test_plain_progress_is_told_after_ten_seconds_if_anything_happened() -> None:
    stage = Stage(terminal=False)
    with stage.terminal:
        stage.see(started(n_trials=200))
        for seconds, event in ((9, evaluation(0, 0, 0.5)), (1, evaluation(0, 1, 0.6))):
            stage.now += seconds
            stage.see(event)
        assert len(stage.lines()) == 2
        stage.now += 10
        stage.terminal.update()
        assert len(stage.lines()) == 2


@pytest.mark.parametrize("terminal", [False, True])
def test_words_of_users_are_neither_markup_nor_do_they_steer_the_terminal(
    terminal: bool,
) -> None:
    stage = Stage(terminal=terminal, width=200)
    with stage.terminal:
        stage.see(started(), closed(0, "failed", error="\x1b[2J\x1b]0;title\x07[/x] \x9b31mout"))
    print_summary(
        stage.console,
        trialbus.StudyFinished(
            study="[red]s[/]\x1b[2J",
            submission="1",
            reason="failed",
            error="\x07[/x]",
            best_trials=[events.BestTrial(number=0, values=[1.0], params={"[b]p": "\x1b[2J[i]v"})],
        ),
        metrics=["[m]"],
        wall_s=1.0,
    )
    out = stage.out.getvalue()
    assert not re.search(r"\x1b\[2J|\x1b]0;title|[\x07\x9b]", out)
    for word in ("failed: [/x]", "[red]s[/]", "[m] 1", "[b]p", "[i]v"):
        assert word in stage.console.export_text(clear=False)
    assert terminal or not re.search(r"[\x00-\x09\x0b-\x1f]", out)


def test_the_summary_has_best_params_counts_time_and_the_path_unbroken() -> None:
    report = Path("/" + "long/" * 30 + "report.html")
    counts = events.TrialCounts(complete=8, pruned=3, failed=1)
    for terminal in (False, True):
        stage = Stage(terminal=terminal, width=60)
        end = ended(best_trials=[BEST], counts=counts)
        print_summary(
            stage.console,
            end,
            metrics=["val/accuracy"],
            directions=["maximize"],
            wall_s=3723.4,
        )
        print_report(stage.console, report)
        shown = stage.console.export_text()
        for part in (
            "all trials done",
            "val/accuracy 0.9875 (maximized) in trial 4",
            "8 complete, 3 pruned, 1 failed",
            "1:02:03",
            f"report  {report}\n",
        ):
            assert part in shown
        assert re.search(r"lr +0\.25", shown)
        assert re.search(r"optimizer +adamw", shown)
        assert "error" not in shown
        assert ("╭" in shown) == terminal


def test_the_summary_of_several_objectives_lists_the_front() -> None:
    stage = Stage(terminal=False)
    front = [
        events.BestTrial(number=number, values=[0.5, float(number)], params={"lr": 0.1})
        for number in range(7)
    ]
    print_summary(stage.console, ended(best_trials=front), metrics=["a", "b"], wall_s=1.0)
    out = stage.out.getvalue()
    assert "a 0.5, b 4 in trial 4" in out
    assert "in trial 5" not in out
    assert "and 2 more on the Pareto front" in out


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (
            ended("failed", error="no such pruner"),
            ["error: no such pruner", "next: fix the cause and run the same study command again"],
        ),
        (
            ended("stopped", error="by hand", best_trials=[BEST]),
            ["reason: by hand", "next: the same study command continues with the remaining trials"],
        ),
        (ended("timeout", best_trials=[BEST]), ["next: the same study command continues"]),
        (
            ended(),
            [
                "all trials done, none complete",
                "error: no trial was completed; the logs of the trials say why",
            ],
        ),
    ],
)
def test_a_study_that_did_not_reach_its_end_says_why_and_what_to_do_next(
    end: events.StudyFinished, said: list[str]
) -> None:
    stage = Stage(terminal=False)
    print_summary(stage.console, end, metrics=["val/accuracy"], wall_s=1.0)
    for part in said:
        assert part in stage.out.getvalue()


def test_a_sparkline_goes_from_its_least_to_its_greatest_value() -> None:
    assert draw_sparkline([0.0, 0.5, 1.0, math.nan, math.inf]) == "▁▄█"
    assert draw_sparkline([3.0, 3.0]) == "▁▁"
    assert draw_sparkline([]) == ""
    assert draw_sparkline([-1.7e308, 1.7e308]) == "▁█"
    assert draw_sparkline([0.0, 5e-324]) == "▁▁"


def test_a_long_curve_is_drawn_from_its_first_value_to_its_last() -> None:
    drawn = draw_sparkline(map(float, range(1000)), width=8)
    assert (len(drawn), drawn[0], drawn[-1]) == (8, "▁", "█")


def test_seconds_and_words_of_others_are_made_readable() -> None:
    assert [format_done(6, n) for n in (12, None, 6, 2)] == ["6/12", "6/?", "6/6", "6"]
    assert [format_clock(s) for s in (0, 59.6, 600, 3600, 93784)] == [
        "0:00",
        "1:00",
        "10:00",
        "1:00:00",
        "26:03:04",
    ]
    assert strip_control_characters("a\x1b[1;31mb\x1b[0m\tc\r\n") == "ab\tc\n"
