"""`trialbus best` prints params that the next command reads as the values of the trial."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import msgspec
import optuna
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from trialbus.study.spec_loading import load_spec
from trialbus_services.cli.main import main
from trialbus_services.optimizer.attributes import ORIGIN, SPEC

PARAMS = {"lr": 0.5, "optimizer": "adam", "note": "two words"}
SPACE = {
    "lr": {"type": "float", "low": 0.0, "high": 1.0},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "note": {"type": "categorical", "choices": ["two words", "null"]},
}
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(0.0, 1.0),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "note": CategoricalDistribution(["two words", "null"]),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(values: list[list[float]], trainer: dict[str, Any] | None = None) -> None:
    """Record a study with a trial for each entry of `values`, the last with `PARAMS`."""
    study = optuna.create_study(
        study_name="digits",
        storage="sqlite:///optuna_studies.db",
        directions=[StudyDirection.MINIMIZE] * len(values[0]),
    )
    if trainer is not None:
        fields = {"name": "digits", "objective": {"metric": "loss"}, "n_trials": 3}
        spec = load_spec(
            {**fields, "params": SPACE},
            sampler={"type": "RandomSampler"},
            pruner=None,
        )
        spec = msgspec.structs.replace(spec, base_config={"epochs": 3})
        study.set_user_attr(SPEC, msgspec.to_builtins(spec))
        study.set_user_attr(ORIGIN, {"config": {"trainer": trainer}})
    for n, trial_values in enumerate(values):
        params = PARAMS if n == len(values) - 1 else {**PARAMS, "lr": 0.25}
        study.add_trial(
            create_trial(values=trial_values, params=params, distributions=DISTRIBUTIONS)
        )


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        (None, "--lr=0.5 --optimizer=adam '--note=two words'"),
        ({"command": ["run"]}, "--lr=0.5 --optimizer=adam '--note=two words' --epochs=3"),
        (
            {"command": ["run"], "params_as": "overrides"},
            "lr=0.5 optimizer=adam \"note='two words'\" epochs=3",
        ),
    ],
    ids=["plain-optuna", "attach", "overrides"],
)
def test_params_are_printed_as_the_program_of_the_study_takes_them(
    capsys: pytest.CaptureFixture[str],
    trainer: dict[str, Any] | None,
    expected: str,
) -> None:
    record([[0.9], [0.1]], trainer)
    assert main(["best", "digits"]) == 0
    out, err = capsys.readouterr()
    assert sorted(shlex.split(out)) == sorted(shlex.split(expected))
    assert "trial 1 of digits, the best: " in err


def test_every_form_is_read_as_the_values_of_the_trial(capsys: pytest.CaptureFixture[str]) -> None:
    record([[0.1]])

    def read(form: str) -> str:
        assert main(["best", "digits", "--as", form]) == 0
        return capsys.readouterr().out

    overrides = OverridesParser.create().parse_overrides(shlex.split(read("overrides")))
    assert {str(o.key_or_group): o.value() for o in overrides} == PARAMS
    assert json.loads(read("json")) == PARAMS
    assert {name: yaml.safe_load(read("yaml"))[name] for name in PARAMS} == PARAMS
    assert set(shlex.split(read("env"))) == {
        "TRIALBUS_PARAM_LR=0.5",
        "TRIALBUS_PARAM_OPTIMIZER=adam",
        "TRIALBUS_PARAM_NOTE=two words",
    }


def test_a_pareto_front_is_printed_trial_by_trial_and_one_trial_can_be_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record([[0.9, 0.1], [0.95, 0.95], [0.1, 0.9]])
    assert main(["best", "digits", "--as", "json"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["lr"] for line in out.splitlines()] == [0.25, 0.5]
    assert "trial 2 of digits, one of 2 on the Pareto front" in err
    assert "choose one of these trials with --trial N" in err
    assert main(["best", "digits", "--as", "json", "--trial", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["lr"] == 0.25


def test_a_study_without_a_complete_trial_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(study_name="digits", storage="sqlite:///optuna_studies.db")
    study.add_trial(create_trial(state=TrialState.FAIL, params=PARAMS, distributions=DISTRIBUTIONS))
    assert main(["best", "digits"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "'digits' has no best trial: none is complete and feasible (1 fail)" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digts"], "no study 'digts' in 'sqlite:///optuna_studies.db'; did you mean 'digits'"),
        ([], "which study? 'sqlite:///optuna_studies.db' has:\ndigits"),
        (["digits", "--trial", "9"], "--trial: 'digits' has no trial 9 (expected 0 to 0)"),
        (["digits", "storage.url=sqlite:///none.db"], "storage.url: there is no file 'none.db'"),
    ],
    ids=["unknown", "none", "trial", "storage"],
)
def test_a_wrong_study_trial_or_storage_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    record([[0.1]])
    assert main(["best", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_study_file_names_its_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record([[0.1]])
    (here / "mine.yaml").write_text(
        yaml.safe_dump(
            {
                "study": {
                    "name": "digits",
                    "n_trials": 3,
                    "objective": {"metric": "loss"},
                    "params": SPACE,
                }
            }
        )
    )
    assert main(["best", "mine.yaml"]) == 0
    assert "--lr=0.5" in capsys.readouterr().out
