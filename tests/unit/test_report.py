"""The report of every kind of study is made with all available parts and never fails."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from support.studies import KINDS, Direction, make_ordinary_study, make_study, make_trial
from trialbus_services.config.report_settings import FIGURES, ON_DEMAND, ReportSettings
from trialbus_services.optimizer.attributes import ELAPSED, END, ORIGIN, RAN, THINNED
from trialbus_services.reporter.report import write_report
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import summarize_study
from trialbus_services.reporter.table import tabulate
from trialbus_services.views.formats import format_duration

PAGE_ONLY = ReportSettings(files=[], plotly_js="beside")
# What the page says of each kind, and figures that it then must have.
SAYS: dict[str, tuple[str, set[str]]] = {
    "ordinary": ("6 pruned", {*FIGURES} - ON_DEMAND - {"pareto", "hypervolume"}),
    "no trial": ("No trial was completed.", set()),
    "one trial": ("It takes at least two complete trials.", {"history", "slices", "timeline"}),
    "none complete": ("no trial was completed", {"intermediate", "timeline"}),
    "all running": ("3 still running", {"intermediate", "timeline"}),
    "all waiting": ("3 waiting", set()),
    "all failed": (" no</summary>", {"timeline"}),
    "none feasible": ("no complete trial is feasible", {"history", "slices", "timeline"}),
    "some infeasible": ("feasible", {"history", "slices", "importances"}),
    "all of one value": ("All complete trials have the same value.", {"history", "slices"}),
    "infinite values": ("inf", {"history", "slices"}),
    "only infinite values": ("No complete trial has a finite value.", {"timeline"}),
    "nan on the way": ("best objective", {"history", "intermediate"}),
    "one param": ("It takes at least two params.", {"history", "slices", "parallel"}),
    "no param": ("No trial has a param.", {"history", "edf", "timeline"}),
    "categorical only": ("It takes at least two params.", {"history", "slices", "parallel"}),
    "conditional params": ("kind", {"history", "slices", "importances", "parallel"}),
    "a hundred params": ("The first 12 of 100 params.", {"slices", "parallel", "importances"}),
    "two objectives": ("trials on the Pareto front", {"pareto", "hypervolume", "history-1"}),
    "three objectives": ("trials on the Pareto front", {"pareto", "hypervolume", "history-2"}),
    "four objectives": ("It shows two or three objectives.", {"hypervolume", "history-3"}),
}


def shown(page: str) -> set[str]:
    return set(re.findall(r'data-figure="([\w-]+)"', page))


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_of_every_kind_gets_a_page_that_says_what_it_can(kind: str, tmp_path: Path) -> None:
    page = write_report(KINDS[kind](), tmp_path, options=PAGE_ONLY)[0].read_text()
    word, figures = SAYS[kind]
    assert word in page
    assert figures <= shown(page)
    assert "could not be drawn" not in page
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        json.loads(data, parse_constant=pytest.fail)


def test_the_page_is_one_file_with_plotly_in_it_once(tmp_path: Path) -> None:
    page = write_report(make_ordinary_study(), tmp_path)[0].read_text()
    assert page.count("plotly.js v") == 1
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#)""", body)


def test_plotly_can_lie_beside_the_page(tmp_path: Path) -> None:
    page, beside = write_report(make_ordinary_study(), tmp_path, options=PAGE_ONLY)
    assert '<script src="plotly.min.js"></script>' in page.read_text()
    assert beside == page.parent / "plotly.min.js"
    assert "plotly.js v" in beside.read_text()[:200]


def test_the_page_has_the_figures_that_were_asked_for(tmp_path: Path) -> None:
    options = ReportSettings(files=[], figures=["timeline", "edf", "terminator"])
    page = write_report(make_study(*map(make_trial, range(4))), tmp_path, options=options)[
        0
    ].read_text()
    assert shown(page) == {"timeline", "edf", "terminator"}


def test_errors_config_command_commit_and_versions_are_on_the_page(tmp_path: Path) -> None:
    page = write_report(make_ordinary_study(), tmp_path, options=PAGE_ONLY)[0].read_text()
    for word in (
        "RuntimeError: out of memory",
        "1 lost",
        "sampler:\n  name: tpe",
        "trialbus study sampler=tpe",
        "0123abcd",
        "Versions the study ran with",
        "best val/accuracy",
    ):
        assert word in page


def test_names_and_errors_cannot_become_markup(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    evil = make_study(
        *(make_trial(n, params={nasty: n / 9, "y": 1 - n / 9}) for n in range(9)),
        make_trial(9, TrialState.FAIL, params={nasty: 0.5, "y": 0.5}, error=nasty),
        name=f"../{nasty}",
    )
    evil.set_user_attr(ORIGIN, {"git": nasty, "command": nasty})
    page, *others = write_report(evil, tmp_path, metrics=[nasty], config={"name": nasty})
    assert nasty not in page.read_text()
    summary = next(path for path in others if path.name == "summary.md")
    assert nasty not in summary.read_text()
    assert page.parent.parent == tmp_path


@pytest.mark.parametrize(
    ("direction", "values", "best"),
    [("maximize", [1.0, 3.0, 2.0], 1), ("minimize", [3.0, 2.0, 1.0], 2)],
)
def test_the_best_trial_is_optunas(
    direction: Direction, values: Sequence[float], best: int
) -> None:
    made = make_study(
        *(make_trial(n, values=[v]) for n, v in enumerate(values)), directions=[direction]
    )
    assert [t.number for t in Snapshot(made).best] == [best] == [made.best_trial.number]


def test_an_infeasible_trial_is_never_the_best() -> None:
    made = make_study(
        make_trial(0, values=[9.0], constraint=1.0), make_trial(1, values=[1.0], constraint=0.0)
    )
    assert [t.number for t in Snapshot(made).best] == [1] == [made.best_trial.number]


def test_what_pruning_saved_is_counted_in_steps_and_in_time() -> None:
    trials = [make_trial(n, steps=10) for n in range(3)]
    trials += [make_trial(n, TrialState.PRUNED, steps=4) for n in range(5)]
    saved = summarize_study(Snapshot(make_study(*trials))).savings
    assert saved is not None
    assert saved.share == pytest.approx(5 * 6 / (3 * 10 + 5 * 10))
    assert saved.time == timedelta(seconds=5 * 6)  # a step of these trials takes a second


def test_a_thinned_curve_counts_with_all_its_steps() -> None:
    def thinned(number: int, state: TrialState, last: int) -> FrozenTrial:
        found = make_trial(number, state, user_attrs={THINNED: "4"})
        found.intermediate_values = dict.fromkeys([*range(0, last, 4), last], 0.5)
        return found

    trials = [thinned(0, TrialState.COMPLETE, 99), thinned(1, TrialState.PRUNED, 49)]
    saved = summarize_study(Snapshot(make_study(*trials))).savings
    assert saved is not None
    assert saved.share == pytest.approx(50 / 200)


def test_the_compute_time_of_a_study_leaves_out_the_time_between_attempts() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={RAN: 2.5}))
    snapshot = Snapshot(study)
    assert summarize_study(snapshot).compute_time == timedelta(seconds=2.5)
    assert tabulate(snapshot).columns["seconds"] == [2.5]


def test_the_wall_time_of_an_ended_study_is_what_its_optimizer_recorded() -> None:
    study = make_study(make_trial(0))
    span = summarize_study(Snapshot(study)).wall_time
    study.set_user_attr(ELAPSED, 7.5)
    assert summarize_study(Snapshot(study)).wall_time == span, "it may run"
    study.set_user_attr(END, "exhausted")
    assert summarize_study(Snapshot(study)).wall_time == timedelta(seconds=7.5)


def test_failed_trials_are_grouped_by_the_last_line_of_their_error() -> None:
    errors = ["a\nOSError: x", "b\nOSError: x", "KeyError: y", ""]
    trials = [make_trial(n, TrialState.FAIL, error=error) for n, error in enumerate(errors)]
    failures = summarize_study(Snapshot(make_study(*trials))).failures
    assert [(f.reason, f.trials) for f in failures] == [
        ("OSError: x", [0, 1]),
        ("KeyError: y", [2]),
        ("no reason was recorded", [3]),
    ]
    assert failures[0].text == "a\nOSError: x"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"figures": ["histry"]}, "figures has 'histry' (expected some of pareto, "),
        ({"files": ["xlsx"]}, "files has 'xlsx' (expected some of csv, "),
        ({"images": ["pdf"]}, "images has 'pdf' (expected some of png, svg)"),
        ({"own": {"A": {"color": 1}}}, "own.A has no _target_"),
    ],
)
def test_a_mistake_in_the_options_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ReportSettings(**given)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.7, "1 min"), (4800, "1 h 20 min"), (90000, "1 d 1 h")],
)
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == said
