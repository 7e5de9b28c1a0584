"""A study is checked against the study of its name in the storage before anything starts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import optuna
import pytest

import trialbus
from trialbus.study.search_space import Param
from trialbus_services.launcher.storage_check import check_recorded_study
from trialbus_services.optimizer.attributes import SPEC as SPEC_KEY

LAYERS = {"small": [64], "large": [256]}


def make_spec(layers: dict[str, list[int]], **fields: object) -> trialbus.StudySpec:
    params: dict[str, Param] = {
        "layers": trialbus.CategoricalParam(choices=layers),
        "x": trialbus.FloatParam(low=0, high=1),
    }
    return msgspec.structs.replace(
        trialbus.StudySpec(
            name="s", params=params, objectives=(trialbus.Objective(metric="m"),), n_trials=3
        ),
        **fields,
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    """URL of a storage with a study of trialbus that has a trial."""
    url = f"sqlite:///{tmp_path}/studies.db"
    study = optuna.create_study(study_name="s", storage=url, direction="maximize")
    study.set_user_attr(SPEC_KEY, msgspec.to_builtins(make_spec(LAYERS)))
    trial = study.ask()
    trial.suggest_categorical("layers", list(LAYERS))
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 1.0)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
    return url


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        pytest.param(
            make_spec({"small": [64], "large": [512]}),
            r"study\.params\.layers: large is \[512\], and was \[256\]",
            id="label",
        ),
        pytest.param(make_spec({"small": [64]}), r"study\.params\.layers: ", id="choices"),
        pytest.param(
            make_spec(LAYERS, params={"x": trialbus.FloatParam(low=0, high=1)}),
            "study.params: layers is left out",
            id="left-out",
        ),
        pytest.param(
            make_spec(LAYERS, objectives=(trialbus.Objective(metric="m", direction="minimize"),)),
            r"study\.objective\.direction",
            id="direction",
        ),
        pytest.param(
            make_spec(LAYERS, objectives=(trialbus.Objective(metric="loss"),)),
            r"study\.objective\.metric: 'loss' does not fit .* judged by 'm'",
            id="metric",
        ),
        pytest.param(
            make_spec(LAYERS, objectives=(trialbus.Objective(metric="m", aggregate="best"),)),
            r"study\.objective\.aggregate: 'best' does not fit .* judged by 'last'",
            id="aggregate",
        ),
        pytest.param(
            make_spec(LAYERS, constraints=("size <= 3",)),
            r"study\.constraints: \['size <= 3'\] does not fit .* judged by \[\]",
            id="constraint",
        ),
    ],
)
def test_a_study_that_does_not_fit_its_recorded_trials_is_refused(
    url: str, spec: trialbus.StudySpec, problem: str
) -> None:
    with pytest.raises(trialbus.SpecError, match=problem):
        check_recorded_study(url, spec)


def test_a_metric_that_no_trial_reported_may_be_corrected(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    study = optuna.create_study(study_name="s", storage=url, direction="maximize")
    study.set_user_attr(SPEC_KEY, msgspec.to_builtins(make_spec(LAYERS)))
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    check_recorded_study(url, make_spec(LAYERS, objectives=(trialbus.Objective(metric="loss"),)))


def test_a_study_that_fits_or_is_new_leaves_the_storage_as_it_was(url: str) -> None:
    file = Path(url.removeprefix("sqlite:///"))
    before = file.read_bytes()
    check_recorded_study(url, make_spec(LAYERS))
    check_recorded_study(url, make_spec(LAYERS, n_trials=9))
    check_recorded_study(url, make_spec({"a": [1], "b": [2]}, name="another"))
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_storage_that_is_not_there_or_cannot_be_read_is_left_to_the_optimizer(
    tmp_path: Path,
) -> None:
    (tmp_path / "other.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    for name in ("none.db", "other.db"):
        check_recorded_study(f"sqlite:///{tmp_path}/{name}", make_spec(LAYERS))
    check_recorded_study("memory://", make_spec(LAYERS))
    assert not (tmp_path / "none.db").exists()
