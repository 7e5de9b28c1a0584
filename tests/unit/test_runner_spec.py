"""Spec files become studies, and mistakes are refused with key, value and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trialbus import FloatParam, IntParam, Objective, SpecError
from trialbus.study.spec import Component
from trialbus_services.runner import StudyConfig
from trialbus_services.runner.spec import load, parse
from trialbus_services.runner.training import build_overrides

EXAMPLE = Path(__file__).parents[2] / "examples" / "spec.yaml"
PARAMETERS = [{"name": "lr", "type": "float_log", "low": 1e-4, "high": 0.1}]


def with_study(**fields: Any) -> dict[str, Any]:
    return {"studies": [{"study_name": "s", "parameters": PARAMETERS, **fields}]}


def test_the_spec_file_that_ships_loads() -> None:
    spec = load(EXAMPLE)
    assert [study.study_name for study in spec.studies] == ["spec-agent", "spec-reward"]
    agent = spec.studies[0].spec()
    assert agent.params["agent.lr"] == FloatParam(low=1e-4, high=1e-2, log=True)
    assert agent.budget == 10
    assert agent.evaluation.interval == 2


def test_every_field_of_a_study_reaches_the_bus() -> None:
    [study] = parse(
        with_study(
            parameters=[*PARAMETERS, {"name": "n", "type": "int", "low": 1, "high": 9, "step": 2}],
            direction="minimize",
            metric_name="loss",
            use_best_value=True,
            n_trials=7,
            timeout=60,
            episodes_per_trial=30,
            eval_frequency=50,
            eval_episodes=20,
            report_interval=3,
            catch_exceptions=False,
            early_stop_patience=5,
            early_stop_min_delta=0.1,
            base_config={"a": 1, "b": {"c": 2, "d": 3}},
            training_config={"b": {"c": 4}},
            trial_overrides={"b.d": 5},
            sampler={"type": "TPESampler", "seed": 42, "multivariate": True, "group": None},
            pruner={"type": "PercentilePruner", "percentile": 75.0, "n_warmup_steps": 10},
        )
    ).studies
    spec = study.spec()
    assert spec.params["n"] == IntParam(low=1, high=9, step=2)
    assert spec.objectives == (Objective(metric="loss", direction="minimize", aggregate="best"),)
    assert (spec.n_trials, spec.timeout_s, spec.budget) == (7, 60.0, 30)
    assert (spec.evaluation.interval, spec.evaluation.episodes) == (50, 20)
    assert (spec.early_stop_patience, spec.early_stop_min_delta) == (5, 0.1)
    assert not spec.catch_exceptions
    assert spec.sampler == Component(type="TPESampler", args={"seed": 42, "multivariate": True})
    assert spec.pruner is not None
    assert spec.pruner.args["percentile"] == 75.0
    assert spec.config == {
        "a": 1,
        "b": {"c": 4, "d": 5},
        "callbacks": {"optuna": {"metric_name": "loss", "report_interval": 3}},
    }


def test_arguments_that_optuna_deprecated_are_taken_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="consider_prior"):
        parse(with_study(sampler={"type": "TPESampler", "consider_prior": True}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_study(n_trial=3), r"studies\[0\]\.n_trial: no such key; did you mean 'n_trials'"),
        (
            {**with_study(), "result_dir": "x"},
            r"result_dir: no such key; did you mean 'results_dir'",
        ),
        (with_study(n_trials="many"), r"studies\[0\]\.n_trials: Expected `int`.*'many'"),
        (with_study(n_trials=0), r"studies\[0\]\.n_trials: 0 is below 1"),
        (with_study(direction="up"), r"studies\[0\]\.direction: 'up' is not an allowed value"),
        (with_study(n_jobs=0), r"n_jobs 0"),
        (with_study(report_interval=0), r"report_interval 0 is below 1"),
        (with_study(keep_best_n=0), r"keep_best_n 0 is below 1"),
        (with_study(timeout=-1), r"studies\[0\]\.timeout: -1 is not above zero"),
        (with_study(sampler={"n_startup_trials": 1}), r"studies\[0\]\.sampler\.type: missing"),
        (
            with_study(sampler={"type": "TPESamplr"}),
            r"studies\[0\]\.sampler\.type: .*did you mean 'TPESampler'",
        ),
        (
            with_study(pruner={"type": "MedianPruner", "n_warm_up": 1}),
            r"studies\[0\]\.pruner\.n_warm_up",
        ),
        (with_study(parameters=[{"type": "float"}]), r"studies\[0\]\.parameters\[0\]\.name"),
        (
            with_study(parameters=[{"name": "x", "type": "float", "low": 2, "high": 1}]),
            r"studies\[0\]\.parameters\.x: low 2 is above high 1",
        ),
        (
            with_study(eval_frequency=3, evaluation_interval=4),
            r"studies\[0\]\.eval_frequency: 3 is not evaluation_interval 4",
        ),
        (with_study(evaluation_interval=0), r"studies\[0\]\.evaluation_interval: 0 is below 1"),
        (with_study(eval_episodes=0), r"studies\[0\]\.evaluation_episodes: 0 is below 1"),
        (with_study(metric_name=""), r"studies\[0\]\.metric_name: '' names no metric"),
        (with_study(training_config={"a": 1, "a.b": 2}), r"studies\[0\]\.training_config: a\.b"),
        (with_study(base_config="no.yaml"), r"studies\[0\]\.base_config: .*no\.yaml' cannot be"),
        ({**with_study(), "max_concurrent_trials": 0}, r"max_concurrent_trials 0 is below 1"),
        (
            {**with_study(), "log_level": "LOUD"},
            r"log_level: 'LOUD' is not an allowed value .*WARNING",
        ),
        ({**with_study(), "gpu_per_trial": 1.5}, r"gpus?_per_trial 1.5"),
        ({"studies": []}, r"studies is empty"),
        ({}, r"missing required field `studies`"),
        ({"studies": with_study()["studies"] * 2}, r"studies has s twice"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_mistakes_in_a_spec_file_name_file_key_value_and_what_was_expected(
    tmp_path: Path, data: dict[str, Any], words: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(SpecError, match=rf"mine\.yaml: .*{words}"):
        load(path)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "cannot be read"), ("- 1", "holds list"), (None, "No such file")]
)
def test_a_file_that_is_no_spec_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=rf"mine\.yaml: .*{words}"):
        load(path)


def test_a_base_config_is_found_beside_its_spec_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("agent: {depth: 2}")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(with_study(base_config="base.yaml")))
    assert load(path).studies[0].spec().config == {"agent": {"depth": 2}}


def test_a_function_that_another_process_cannot_import_is_refused() -> None:
    with pytest.raises(SpecError, match=r"trainer: .*top level of a \.py file"):
        build_overrides(lambda trial: None, Path())


def test_a_study_made_in_python_needs_a_name_and_parameters_only() -> None:
    assert StudyConfig(study_name="s", parameters=PARAMETERS).spec().n_trials == 100
