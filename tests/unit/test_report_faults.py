"""One part of a report that fails takes no other part along."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import optuna
import optuna.visualization as plots
import plotly.graph_objects as go
import pytest

from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.reporter import exports
from trialbus_services.reporter.figures import curves, timeline
from trialbus_services.reporter.figures.study_figures import build_figures
from trialbus_services.reporter.report import write_report
from trialbus_services.reporter.snapshot import Snapshot

HISTORY = ReportSettings(figures=["history"])


def measure(trial: optuna.Trial) -> float:
    choices: list[Any] = [[64], [64, 64], [256, 64]]
    layers: Any = trial.suggest_categorical("layers", choices)
    return sum(layers) + trial.suggest_float("dropout", 0, 0.5)


def make_study() -> optuna.Study:
    study = optuna.create_study(study_name="s", sampler=optuna.samplers.RandomSampler(seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(measure, n_trials=12)
    return study


def test_a_study_of_list_choices_has_page_files_and_figures(tmp_path: Path) -> None:
    study = make_study()
    paths = write_report(study, tmp_path)
    names = {path.name for path in paths}
    assert names >= {"report.html", "trials.csv", "study.json", "best_params.yaml", "summary.md"}
    document = json.loads((tmp_path / "s" / "study.json").read_text())
    assert document["trials"][0]["params"] == study.trials[0].params
    figures = build_figures(Snapshot(study), ReportSettings(), study)
    drawn = {figure.key for figure in figures if figure.figure is not None}
    assert drawn >= {"history", "importances", "parallel", "slices", "contour", "rank", "edf"}


class RudeError(BaseException):
    """An error that is no `Exception` and has no text."""

    def __str__(self) -> NoReturn:
        raise RuntimeError


def refuse(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (plots, "plot_param_importances"),
        (plots, "plot_slice"),
        (plots, "plot_contour"),
        (curves, "get_reported_trials"),
        (timeline, "get_started_trials"),
        (plots, "plot_optimization_history"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_figure_that_raises_anything_leaves_out_itself_alone(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    monkeypatch.setattr(module, name, refuse(TypeError("unhashable type: 'list'")))
    study = make_study()
    figures = build_figures(Snapshot(study), ReportSettings(), study)
    missing = [figure.missing for figure in figures if figure.missing is not None]
    assert any("unhashable type: 'list'" in reason for reason in missing)
    assert sum(figure.figure is not None for figure in figures) >= 4


@pytest.mark.parametrize(
    "error",
    [RudeError(), SystemExit(3), RecursionError(), MemoryError()],
    ids=lambda e: type(e).__name__,
)
def test_a_figure_of_a_user_that_raises_anything_leaves_out_itself_alone(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    module = ModuleType("rude_figures")
    module.__dict__.update(draw=refuse(error))
    monkeypatch.setitem(sys.modules, "rude_figures", module)
    study = make_study()
    options = ReportSettings(figures=["history"], own={"Rude": {"_target_": "rude_figures.draw"}})
    figures = {figure.key: figure for figure in build_figures(Snapshot(study), options, study)}
    assert figures["own-rude"].missing
    assert type(error).__name__ in figures["own-rude"].missing
    assert figures["history"].figure is not None


def test_a_figure_of_a_user_that_cannot_be_written_leaves_out_itself_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def draw(_: optuna.Study) -> go.Figure:
        return go.Figure(go.Scatter(x=[1], y=[2], customdata=[object()]))

    module = ModuleType("odd_figures")
    module.__dict__.update(draw=draw)
    monkeypatch.setitem(sys.modules, "odd_figures", module)
    options = ReportSettings(figures=[], own={"Odd": {"_target_": "odd_figures.draw"}})
    page, *_ = write_report(make_study(), tmp_path, options=options)
    assert "It could not be drawn. TypeError" in page.read_text()


def test_ctrl_c_in_a_figure_ends_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "plot_edf", refuse(KeyboardInterrupt()))
    study = make_study()
    with pytest.raises(KeyboardInterrupt):
        build_figures(Snapshot(study), ReportSettings(), study)


@pytest.mark.parametrize("name", ["to_csv", "to_json", "to_markdown", "to_parquet"])
def test_a_file_that_cannot_be_made_is_named_on_the_page_and_leaves_out_itself_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(exports, name, refuse(OverflowError("too large")))
    page, *paths = write_report(make_study(), tmp_path, options=HISTORY)
    assert len(paths) >= 4
    assert "OverflowError: too large" in page.read_text()
