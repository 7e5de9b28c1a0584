"""Figures have the data of Optuna's plots; a user's figure that fails leaves the rest whole."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import math
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optuna.visualization as plots
import plotly.graph_objects as go
import pytest
from optuna.trial import TrialState

from support.studies import KINDS, make_large_study, make_ordinary_study, make_study, make_trial
from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.optimizer.attributes import CURVE, SPEC, WORKER
from trialbus_services.reporter.figures import curves, custom, parallel
from trialbus_services.reporter.figures.figure import Figure, get_traces
from trialbus_services.reporter.figures.importances import compute_importances
from trialbus_services.reporter.figures.pareto import compute_reference_point
from trialbus_services.reporter.figures.study_figures import build_figures
from trialbus_services.reporter.report import write_report
from trialbus_services.reporter.snapshot import Snapshot

# Optuna's figures, to compare with, warn that some are experimental.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module")
def ten_thousand() -> optuna.Study:
    return make_large_study(10_000)


def figures(of: optuna.Study, **options: Any) -> dict[str, Figure]:
    return {
        figure.key: figure for figure in build_figures(Snapshot(of), ReportSettings(**options), of)
    }


def drawn(of: optuna.Study, key: str, **options: Any) -> go.Figure:
    figure = figures(of, **options)[key].figure
    assert figure is not None
    return figure


def points(figure: go.Figure, *axes: str) -> list[list[list[Any]]]:
    return [[list(trace[axis]) for axis in axes] for trace in get_traces(figure)]


@pytest.mark.parametrize("key", ["history", "slices", "edf", "importances", "contour", "rank"])
@pytest.mark.parametrize("kind", ["ordinary", "conditional params", "some infeasible"])
def test_single_objective_figures_have_the_values_of_optunas(key: str, kind: str) -> None:
    made = KINDS[kind]()
    important = list(compute_importances(Snapshot(made)))
    theirs = {
        "history": lambda: plots.plot_optimization_history(made),
        "slices": lambda: plots.plot_slice(made),
        "edf": lambda: plots.plot_edf(made),
        "importances": lambda: plots.plot_param_importances(made),
        "contour": lambda: plots.plot_contour(made, params=important[:2]),
        "rank": lambda: plots.plot_rank(made, params=important[:3]),
    }
    ours = figures(made, figures=[key])[key]
    if ours.figure is None:
        assert ours.missing == "No two params explain the value."
        assert len(important) < 2
        return
    np.testing.assert_equal(points(ours.figure, "x", "y"), points(theirs[key](), "x", "y"))


def test_curves_have_the_values_of_optunas() -> None:
    made = make_ordinary_study()
    found = {
        trace.name.split(",")[0].replace("trial ", ""): [list(trace.x), list(trace.y)]
        for trace in get_traces(drawn(made, "intermediate"))
        if trace.name.startswith("trial")
    }
    theirs = get_traces(plots.plot_intermediate_values(made))
    assert found == {t.name.replace("Trial", ""): [list(t.x), list(t.y)] for t in theirs}


def test_curves_tell_pruned_trials_and_the_best_from_others() -> None:
    made = make_ordinary_study()
    lines = {trace.name: trace.line for trace in get_traces(drawn(made, "intermediate"))}
    best = made.best_trial.number
    assert lines[f"trial {best}, best"].width > 2 * lines["trial 1, complete"].width
    assert lines["trial 20, pruned"].dash == "dot"
    assert lines["trial 20, pruned"].color != lines["trial 1, complete"].color


@pytest.mark.parametrize("kind", ["two objectives", "three objectives"])
def test_the_pareto_front_has_the_values_of_optunas(kind: str) -> None:
    made = KINDS[kind]()
    axes = ("x", "y", "z")[: len(made.directions)]
    ours = drawn(made, "pareto")
    assert points(ours, *axes) == points(plots.plot_pareto_front(made), *axes)
    assert [trace.name for trace in get_traces(ours)] == ["dominated", "on the front"]


def test_the_hypervolume_has_the_values_of_optunas() -> None:
    made = KINDS["two objectives"]()
    theirs = plots.plot_hypervolume_history(made, compute_reference_point(Snapshot(made)))
    assert points(drawn(made, "hypervolume"), "x", "y") == points(theirs, "x", "y")


def test_the_timeline_has_the_bars_of_optunas_in_a_row_for_each_slot() -> None:
    made = make_ordinary_study()

    def bars(figure: go.Figure) -> set[tuple[str, float]]:
        return {bar for t in get_traces(figure) for bar in zip(t.base, t.x, strict=True)}

    ours = drawn(made, "timeline")
    assert bars(ours) == bars(plots.plot_timeline(made))
    rows = {row for trace in get_traces(ours) for row in trace.y}
    assert rows == {"node0 · 0", "node0 · 1", "node1 · 0", "node1 · 1", "worker not known"}
    assert {trace.name for trace in get_traces(ours)} == {"complete", "pruned", "fail", "lost"}


def test_the_timeline_of_a_study_without_workers_has_a_row_for_each_trial() -> None:
    made = make_study(*map(make_trial, range(4)))
    assert points(drawn(made, "timeline"), "y") == points(plots.plot_timeline(made), "y")


def test_each_objective_is_explained_in_its_own_direction() -> None:
    trials = [
        make_trial(
            n, params={"x": n / 40, "y": (n * 7 % 40) / 40}, values=[n / 40, (n * 7 % 40) / 40]
        )
        for n in range(40)
    ]
    made = make_study(*trials, directions=["maximize", "minimize"])
    for i, bar in enumerate(get_traces(drawn(made, "importances"))):
        alone = make_study(
            *(make_trial(t.number, params=t.params, values=[t.values[i]]) for t in trials),
            directions=["maximize" if i == 0 else "minimize"],
        )
        shares = dict(zip(bar.y, bar.x, strict=True))
        assert shares == pytest.approx(optuna.importance.get_param_importances(alone))


def test_curves_of_several_objectives_are_those_that_prune() -> None:
    curve = {CURVE: {"0": 0.5, "3": 0.75}}
    trials = [make_trial(n, values=[n, n], steps=0, user_attrs=curve) for n in range(3)]
    made = make_study(*trials, directions=["minimize", "minimize"])
    made.set_user_attr(SPEC, {"prune_by": {"metric": "val/loss"}})
    figure = drawn(made, "intermediate")
    assert points(figure, "x", "y") == [[[0, 3], [0.5, 0.75]]] * 3
    layout: Any = figure.layout  # pyright: ignore[reportUnknownVariableType]
    assert layout.yaxis.title.text == "val/loss"


def test_ten_thousand_trials_are_thinned_with_a_word(ten_thousand: optuna.Study) -> None:
    found = figures(ten_thousand)
    complete = [t for t in ten_thousand.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    assert found["parallel"].note == (
        f"{parallel.MOST_LINES} of {len(complete):,} complete trials, evenly spaced, "
        "the best among them."
    )
    for key in ("history", "intermediate", "slices", "contour", "rank", "timeline"):
        assert found[key].note
        figure = found[key].figure
        assert figure is not None
        assert sum(len(trace.x) for trace in get_traces(figure)) <= 25_000


def test_thinning_keeps_the_best_trial(ten_thousand: optuna.Study) -> None:
    snapshot = Snapshot(ten_thousand)
    (best,) = snapshot.best
    assert best.number == ten_thousand.best_trial.number
    assert best in snapshot.sample(10, [best]).complete_trials()
    lines = get_traces(curves.draw_curves(snapshot, "value"))
    assert f"trial {best.number}, best" in {trace.name for trace in lines}


def test_a_long_curve_keeps_its_last_step() -> None:
    long = make_trial(0)
    long.intermediate_values = {step: float(step) for step in range(10_003)}
    (line,) = get_traces(drawn(make_study(long), "intermediate"))
    assert len(line.x) <= 202
    assert line.x[-1] == 10_002


def test_the_terminators_figure_is_drawn_on_demand_and_warns_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = make_study(*map(make_trial, range(4)))
    assert "terminator" not in figures(made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_traces(drawn(made, "terminator", figures=["terminator"]))
    assert capfd.readouterr().err == ""


def titled(of: optuna.Study, color: str = "red") -> go.Figure:
    """Draw the values in a colour.

    More about it.
    """
    return go.Figure(go.Scatter(y=[t.value for t in of.trials], line={"color": color}))


def broken(of: optuna.Study) -> go.Figure:
    raise KeyError(f"<b>{of.study_name}</b>")


def no_figure(of: optuna.Study) -> int:
    return len(of.trials)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this module importable, as a user's is."""
    monkeypatch.syspath_prepend(Path(__file__).parent)


@pytest.mark.usefixtures("named")
def test_own_figures_are_drawn_with_their_arguments() -> None:
    call = {"_target_": "test_report_figures.titled", "color": "green"}
    figure = figures(make_ordinary_study(), own={"My values": call})["own-my-values"]
    assert (figure.title, figure.about) == ("My values", "Draw the values in a colour.")
    assert figure.figure is not None
    assert get_traces(figure.figure)[0].line.color == "green"


@pytest.mark.usefixtures("named")
def test_own_figures_that_fail_are_said_on_the_page_and_harm_nothing_else(tmp_path: Path) -> None:
    calls = {
        name: {"_target_": f"test_report_figures.{name}"}
        for name in ("broken", "no_figure", "not_there")
    }
    page = write_report(
        make_ordinary_study(), tmp_path, options=ReportSettings(files=[], own=calls)
    )[0]
    text = page.read_text()
    assert "KeyError: &#39;&lt;b&gt;study&lt;/b&gt;&#39;" in text
    assert "it is a int (expected a plotly.graph_objects.Figure)" in text
    assert "It could not be loaded. report.own.not_there._target_" in text
    assert text.count("data-figure=") == 9  # all figures of a study with one objective


def test_installed_packages_add_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    # A package cannot be installed for one test.
    entries = [
        EntryPoint("values_in_red", "test_report_figures:titled", custom.GROUP),
        EntryPoint("gone", "nowhere.at.all:figure", custom.GROUP),
    ]
    installed = {custom.GROUP: entries}

    def entry_points(*, group: str) -> list[EntryPoint]:
        return installed[group]

    monkeypatch.setattr(custom, "entry_points", entry_points)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    found = figures(make_ordinary_study())
    assert found["own-values-in-red"].title == "Values in red"
    assert found["own-values-in-red"].figure is not None
    assert "No module named 'nowhere'" in (found["own-gone"].missing or "")


def test_hover_texts_have_the_users_attributes_and_not_trialbuses() -> None:
    attrs = {"note": "mine", WORKER: "node1", "long": "x" * 1000}
    trials = (make_trial(n, values=[n, n], user_attrs=attrs) for n in range(9))
    made = make_study(*trials, directions=["minimize", "minimize"])
    hovers = " ".join(str(trace.text) for trace in get_traces(drawn(made, "pareto")))
    assert "mine" in hovers
    assert "node1" not in hovers
    assert "xxx" not in hovers


def test_a_study_that_goes_on_meanwhile_has_one_state_in_all_figures() -> None:
    made = make_study(*map(make_trial, range(5)))
    snapshot = Snapshot(made)
    made.add_trial(make_trial(5, values=[99.0]))
    assert len(snapshot.trials) == 5
    assert snapshot.best[0].values[0] < 2
    assert not math.isnan(snapshot.best[0].values[0])
    assert snapshot.get_trials(states=(TrialState.PRUNED,)) == []
