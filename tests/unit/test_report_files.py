"""The files beside the page can be read back, and serve their purpose."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]
import pytest
import yaml
from optuna.trial import TrialState

from support.studies import KINDS, make_ordinary_study, make_study, make_trial
from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.optimizer.attributes import CAUSE, ERROR
from trialbus_services.reporter.comparison import write_comparison
from trialbus_services.reporter.report import write_report

NO_FIGURE: dict[str, Any] = {"figures": [], "plotly_js": "beside"}


def written(made: Any, tmp_path: Path, *files: str, **options: Any) -> dict[str, Path]:
    chosen = ReportSettings(files=list(files), **NO_FIGURE, **options)
    return {path.name: path for path in write_report(made, tmp_path, options=chosen)}


def parquet(path: Path) -> dict[str, list[Any]]:
    module: Any = pyarrow.parquet
    return module.read_table(path).to_pydict()


def test_csv_has_a_row_for_each_trial(tmp_path: Path) -> None:
    made = make_ordinary_study()
    with written(made, tmp_path, "csv")["trials.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 28
    assert float(rows[3]["val/accuracy"]) == made.trials[3].value
    assert float(rows[3]["x"]) == made.trials[3].params["x"]
    assert {row["state"] for row in rows} == {"complete", "pruned", "fail", "lost"}
    assert (rows[1]["worker"], rows[1]["slot"], rows[27]["worker"]) == ("node1", "0", "")


def test_parquet_has_the_values_of_csv_with_their_types(tmp_path: Path) -> None:
    made = make_ordinary_study()
    path = written(made, tmp_path, "parquet")["trials.parquet"]
    table = parquet(path)
    assert table["trial"] == list(range(28))
    assert table["val/accuracy"][:20] == [t.value for t in made.trials[:20]]
    assert table["val/accuracy"][20] is None


def test_parquet_takes_columns_of_several_types(tmp_path: Path) -> None:
    made = make_study()
    for choice in (None, True, 3, 2.5, "ä"):
        asked = made.ask()
        asked.suggest_categorical("choice", [None, True, 3, 2.5, "ä"])
        made.enqueue_trial({"choice": choice})
        made.tell(asked, 1.0)
    path = written(made, tmp_path, "parquet")["trials.parquet"]
    assert len(parquet(path)["choice"]) == len(made.trials)


def test_a_param_that_is_called_like_a_column_has_one_of_its_own(tmp_path: Path) -> None:
    made = make_study(make_trial(0, params={"state": 0.5, "steps": 0.25, "x": 0.75}))
    with written(made, tmp_path, "csv")["trials.csv"].open() as file:
        (row,) = csv.DictReader(file)
    assert (row["state"], row["params.state"], row["params.steps"]) == ("complete", "0.5", "0.25")


def test_json_has_everything_and_is_strict(tmp_path: Path) -> None:
    infinite = make_trial(5, values=[math.inf])
    infinite.intermediate_values = {3: math.nan, 4: -math.inf}
    made = make_ordinary_study()
    made.add_trial(infinite)
    text = written(made, tmp_path, "json")["study.json"].read_text()
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["format"] == 1
    assert found["objectives"] == [{"metric": "val/accuracy", "direction": "maximize"}]
    assert found["counts"] == {"complete": 21, "pruned": 6, "fail": 1, "lost": 1}
    assert found["best"] == [28]
    assert found["origin"]["git"] == {"commit": "0123abcd", "dirty": False}
    assert found["trials"][28]["values"] == ["Infinity"]
    assert found["trials"][28]["intermediate_values"] == {"3": "NaN", "4": "-Infinity"}
    assert found["trials"][26]["user_attrs"][ERROR].endswith("out of memory")
    assert found["saved_by_pruning"]["s"] > 0


APPLICATION = """
import json, hydra
from omegaconf import DictConfig, OmegaConf
@hydra.main(config_path=None, config_name=None, version_base=None)
def main(config: DictConfig) -> None:
    print(json.dumps(OmegaConf.to_container(config)))
main()
"""


def test_best_params_override_a_hydra_application(tmp_path: Path) -> None:
    made = make_study(
        make_trial(0, params={"model.x": 0.5, "model.kind": "b", "y": 0.25}), name="my.study-1"
    )
    path = written(made, tmp_path, "params")["best_params.yaml"]
    assert yaml.safe_load(path.read_text()) == {"model": {"x": 0.5, "kind": "b"}, "y": 0.25}
    application = tmp_path / "application.py"
    application.write_text(APPLICATION)
    # The command is the one that the file itself names.
    command = path.read_text().splitlines()[2].removeprefix("# python train.py ")
    arguments = command.replace("<the folder above this one>", str(tmp_path))
    ran = subprocess.run(
        [sys.executable, application, *arguments.split(), "hydra.run.dir=."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"model": {"x": 0.5, "kind": "b"}, "y": 0.25}


def test_params_whose_names_cannot_be_groups_stay_as_they_are(tmp_path: Path) -> None:
    made = make_study(make_trial(0, params={"a": 0.5, "a.b": 0.25}))
    path = written(made, tmp_path, "params")["best_params.yaml"]
    assert yaml.safe_load(path.read_text()) == {"a": 0.5, "a.b": 0.25}


@pytest.mark.parametrize("kind", ["no trial", "all failed", "none feasible"])
def test_without_a_best_trial_there_are_no_best_params(kind: str, tmp_path: Path) -> None:
    assert "best_params.yaml" not in written(KINDS[kind](), tmp_path, "params")


def test_the_summary_fits_a_pull_request(tmp_path: Path) -> None:
    text = written(make_ordinary_study(), tmp_path, "summary")["summary.md"].read_text()
    assert "maximize val/accuracy · 20 complete, 6 pruned, 1 fail, 1 lost" in text
    assert (
        "| trial | val/accuracy | x | y |\n| --- | --- | --- | --- |\n| 12 | 1 | 0.4 | 0.8 |"
        in text
    )
    assert "pruning saved 18 s (14% of the steps)" in text
    assert "Params by importance: " in text


def test_the_summary_names_failed_trials_with_cause_and_reason(tmp_path: Path) -> None:
    end = "(the trainer exited with code 2)"
    kinds = [
        ("exception", f"usage: train.py\nerror: no such option --x=0.25 {end}"),
        ("exception", f"usage: train.py\nerror: no such option --x=1e-3 {end}"),
        ("bad_value", "study.objective.metric 'loss' is NaN (study.nan=fail)"),
        ("lost", "lost 4 times (study.max_retries=3)"),
    ]
    trials = [
        make_trial(n, TrialState.FAIL, error=error, user_attrs={CAUSE: cause})
        for n, (cause, error) in enumerate(kinds)
    ]
    files = written(make_study(*trials), tmp_path, "summary", "csv")
    text = files["summary.md"].read_text()
    assert f"| 0, 1 | exception | error: no such option --x=0.25 {end} |" in text
    assert "| 2 | bad\\_value | study.objective.metric 'loss' is NaN (study.nan=fail) |" in text
    assert "| 3 | lost | lost 4 times (study.max\\_retries=3) |" in text
    with files["trials.csv"].open() as file:
        assert list(csv.DictReader(file))[1]["error"] == f"error: no such option --x=1e-3 {end}"


def test_the_summary_of_a_front_has_a_row_for_each_trial_on_it(tmp_path: Path) -> None:
    text = written(KINDS["two objectives"](), tmp_path, "summary")["summary.md"].read_text()
    assert text.count("\n| ") == 2 + 9


def test_without_pyarrow_the_rest_is_written_and_the_page_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    found = written(make_ordinary_study(), tmp_path, "csv", "parquet")
    assert "trials.csv" in found
    assert "trials.parquet" not in found
    assert "the package pyarrow is not installed" in found["report.html"].read_text()


@pytest.mark.timeout(180)
def test_figures_are_written_as_pictures(tmp_path: Path) -> None:
    options = ReportSettings(files=[], figures=["history"], images=["png", "svg"])
    made = make_study(*map(make_trial, range(4)))
    _, png, svg = write_report(made, tmp_path, options=options)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.parent == tmp_path / "study" / "figures"
    assert "<svg" in svg.read_text()[:500]


def test_without_a_browser_the_page_says_that_there_are_no_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    options = ReportSettings(files=[], figures=["history"], images=["png"])
    (page,) = write_report(make_study(make_trial(0)), tmp_path, options=options)
    assert "No pictures: there is no Chrome or Chromium" in page.read_text()


def test_a_comparison_has_the_studies_side_by_side(tmp_path: Path) -> None:
    worse = make_study(*(make_trial(n + 20) for n in range(9)), name="other")
    (path,) = write_comparison([make_ordinary_study("first"), worse], tmp_path)
    page = path.read_text()
    for key in ("history", "progress", "edf", "importances"):
        assert f'data-figure="{key}"' in page
        assert page.count('"name":"first"') >= 4
        assert page.count('"name":"other"') >= 4
    assert "different objectives: maximize objective, maximize val/accuracy" in page


def test_a_comparison_takes_studies_of_every_kind(tmp_path: Path) -> None:
    made = [make() for make in KINDS.values()]
    page = write_comparison(made, tmp_path, options=ReportSettings(plotly_js="beside"))[
        0
    ].read_text()
    assert "study (1)" in page
    assert f"study ({len(made)}) has several objectives: it is in the table only." in page
    assert "could not be drawn" not in page


def test_a_comparison_of_studies_without_a_complete_trial_says_so(tmp_path: Path) -> None:
    empty = [make_study(name="a"), make_study(make_trial(0, TrialState.PRUNED), name="b")]
    page = write_comparison(empty, tmp_path, options=ReportSettings(plotly_js="beside"))[
        0
    ].read_text()
    assert "No study with one objective has a complete trial." in page


def test_one_study_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 studies cannot be compared"):
        write_comparison([make_ordinary_study()], tmp_path)
