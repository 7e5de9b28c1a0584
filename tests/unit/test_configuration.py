"""The config that a study sets for all trials reaches the training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import optuna
import pytest
from omegaconf import OmegaConf

import trialbus
from support.client import SPEC
from trialbus.testing import TestBus
from trialbus_services import run_optuna_trial
from trialbus_services.config import sections
from trialbus_services.config.base_config import read_base_config

CONFIG = {"env": {"size": 3, "name": "maze"}, "lr": 1.0}


@pytest.fixture
def played() -> Iterator[TestBus]:
    with TestBus() as made:
        yield made


def test_params_are_laid_over_the_configuration(
    played: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.assign(
        monkeypatch.setenv,
        params={"lr": 0.1, "env.size": 7},
        config=CONFIG,
        evaluation=trialbus.Evaluation(interval=50),
    )
    with trialbus.attach() as trial:
        assert trial.config["env"]["size"] == trial.config["env.size"] == 7
        assert trial.config.nested() == {"env": {"name": "maze", "size": 7}, "lr": 0.1}
        assert (trial.evaluation.interval, trial.evaluation.episodes) == (50, None)
        assert dict(trial.params) == {"lr": 0.1, "env.size": 7}


def test_a_default_gives_way_to_the_configuration(
    played: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.assign(monkeypatch.setenv, params={}, config=CONFIG)
    with trialbus.attach(defaults={"lr": 0.5, "env.size": 1, "depth": 2}) as trial:
        assert dict(trial.params) == {"lr": 1.0, "env.size": 3, "depth": 2}
        assert trial.config.nested() == {"env": {"name": "maze", "size": 3}, "lr": 1.0, "depth": 2}


def test_run_by_hand_a_configuration_is_made_of_the_defaults() -> None:
    with trialbus.attach(defaults={"env.size": 5}) as trial:
        assert trial.config["env"]["size"] == 5
        assert trial.evaluation == trialbus.Evaluation()
        assert trial.config_name is None


def test_in_plain_optuna_s_process_it_is_the_same() -> None:
    def train(trial: trialbus.Trial) -> float:
        assert trial.config["env.name"] == "maze"
        assert trial.evaluation.episodes == 20
        return float(trial.config["x"])

    spec = msgspec.structs.replace(
        SPEC, base_config=CONFIG, evaluation=trialbus.Evaluation(episodes=20)
    )
    study = optuna.create_study()
    study.optimize(lambda trial: run_optuna_trial(train, trial, spec), 1)
    assert study.best_value == study.best_params["x"]


def test_the_base_may_be_a_yaml_file_whose_references_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("env: {size: 3, depth: '${env.size}'}\n")
    study = {
        "name": "s",
        "n_trials": 1,
        "objective": {"metric": "loss"},
        "params": {"x": "interval(0, 1)"},
        "base_config": "base.yaml",
        "trial_overrides": {"env": {"size": 40}},
    }
    config = {"study": study, "sampler": {"type": "TPESampler"}, "pruner": None}
    spec = sections.read_study(OmegaConf.create(config))
    assert spec.config == {"env": {"depth": 3, "size": 40}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "study.base_config: 'base.yaml' cannot be read: No such file"),
        ("a: [1", "study.base_config: 'base.yaml' cannot be read: while parsing"),
        ("a: ${b}", "study.base_config: 'base.yaml' cannot be read: Interpolation key 'b' not"),
        ("[1, 2]", "study.base_config: 'base.yaml' holds list (expected a mapping)"),
    ],
    ids=str,
)
def test_a_file_that_is_no_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("base.yaml").write_text(text)
    with pytest.raises(trialbus.SpecError) as caught:
        read_base_config("base.yaml")
    assert words in str(caught.value)


def test_what_is_no_path_of_a_file_is_left_as_it_is() -> None:
    assert read_base_config("small") == "small"
    assert read_base_config(CONFIG) is CONFIG
