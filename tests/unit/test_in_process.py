"""Trials of plain Optuna in a single process, with the function that a worker would run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import optuna
import pytest
from hydra import compose, initialize_config_dir
from optuna.trial import TrialState

import trialbus
from support.client import SPEC
from trialbus_services import run_optuna_trial


def train(trial: trialbus.Trial) -> None:
    for step in range(trial.budget):
        trial.report(step, {"loss": trial.params["x"] ** 2 + 1 / (step + 1)})


def test_trials_complete_with_the_values_of_their_evaluations() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: run_optuna_trial(train, trial, SPEC), 4)
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [pytest.approx(trial.params["x"] ** 2 + 1 / 3)]
        assert list(trial.intermediate_values) == [0, 1, 2]


def test_the_return_value_of_the_function_is_the_objective_value() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: run_optuna_trial(lambda _: 0.125, trial, SPEC), 1)
    assert study.best_value == 0.125


def test_constraints_that_the_function_measures_are_the_trials() -> None:
    def measure(trial: trialbus.Trial) -> float:
        trial.set_constraint("size", trial.number - 1)
        return -float(trial.number)

    study = optuna.create_study()
    study.optimize(lambda trial: run_optuna_trial(measure, trial, SPEC), 3)
    assert [trial.constraints for trial in study.trials] == [{"size": n - 1.0} for n in range(3)]
    assert study.best_trial.number == 1


def test_the_study_s_pruner_ends_a_trial_as_it_reports() -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.0))
    study.optimize(lambda trial: run_optuna_trial(train, trial, SPEC), 1)
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [0]


def test_an_exception_of_the_training_fails_the_trial() -> None:
    def fails(_: trialbus.Trial) -> None:
        raise RuntimeError("no luck")

    study = optuna.create_study()
    study.optimize(lambda trial: run_optuna_trial(fails, trial, SPEC), 2, catch=RuntimeError)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2


def test_the_error_for_a_trial_without_a_value_names_the_metric() -> None:
    trial = optuna.create_study().ask()
    with pytest.raises(ValueError, match="trial 0 reported no 'loss'"):
        run_optuna_trial(lambda _: None, trial, SPEC)


def test_the_function_may_ask_for_a_param_of_its_own() -> None:
    def ask(trial: trialbus.Trial) -> float:
        width = trial.request_param("width", trialbus.IntParam(low=2, high=8))
        assert trial.request_param("width", trialbus.IntParam(low=2, high=8)) == width
        with pytest.raises(ValueError, match="width"):
            trial.request_param("width", trialbus.CategoricalParam(choices=("a", "b")))
        return float(str(width))

    study = optuna.create_study()
    study.optimize(lambda trial: run_optuna_trial(ask, trial, SPEC), 1)
    assert study.trials[0].params["width"] == study.best_value


def test_each_of_several_objectives_comes_from_its_metric() -> None:
    def both(trial: trialbus.Trial) -> None:
        trial.report(0, {"loss": 1.0, "size": 5})
        trial.report(1, {"loss": 0.5, "size": 4})

    size = trialbus.Objective(metric="size", direction="minimize", aggregate="best")
    spec = msgspec.structs.replace(SPEC, objectives=(*SPEC.objectives, size))
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(lambda trial: run_optuna_trial(both, trial, spec), 1)
    assert study.trials[0].values == [0.5, 4.0]


def test_hydra_s_global_state_is_clean_for_each_trial(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("lr: 1\n")

    def configured(trial: trialbus.Trial) -> float:
        initialize_config_dir(str(tmp_path), version_base=None).__enter__()
        return float(compose("config", [f"lr={trial.params['x']}"]).lr)

    study = optuna.create_study()
    study.optimize(lambda trial: run_optuna_trial(configured, trial, SPEC), 3)
    for trial in study.trials:
        assert trial.values == [pytest.approx(trial.params["x"])]
