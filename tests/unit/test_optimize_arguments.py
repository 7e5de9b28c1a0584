"""Arguments of `optimize` that cannot be used are refused before anything starts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import (
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.samplers import (
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    PartialFixedSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

import trialbus
from support import objectives
from trialbus.messages import events
from trialbus_services import optimize
from trialbus_services.launcher import launcher
from trialbus_services.runner.components import describe_component

WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "a sampler that enumerates": ({"sampler": "BruteForceSampler"}, "BruteForceSampler enumerates"),
    "a misspelt sampler": ({"sampler": "TPESample"}, "did you mean 'TPESampler'"),
    "a sampler of a wrong type": ({"sampler": 3}, "3 is no sampler"),
    "a misspelt pruner": ({"pruner": "MedianPrunner"}, "MedianPruner"),
    "a misspelt direction": ({"direction": "max"}, "max"),
    "too few metrics": (
        {"directions": ["minimize", "maximize"], "metric": "loss"},
        "1 names for 2 directions",
    ),
    "both directions": ({"direction": "minimize", "directions": ["minimize"]}, "beside direction"),
    "no jobs": ({"n_jobs": 0}, "n_jobs"),
    "no trials": ({"n_trials": 0}, "n_trials"),
    "a misspelt field": ({"budgets": 3}, "did you mean 'budget'"),
    "a folder that is missing": ({"storage": "sqlite:///missing/folder/x.db"}, "storage.url"),
    "a storage of Optuna": (
        {"storage": optuna.storages.InMemoryStorage()},
        "storage: .*expected a URL",
    ),
    "a pair as a param": ({"space": {"x": (1e-4, 0.1)}}, r"here 'interval\(0.0001, 0.1\)'"),
    "a list as a param": ({"space": {"x": ["a", "b", "c"]}}, r"here 'choice\(a, b, c\)'"),
    "a number as a param": ({"space": {"x": 3}}, "study.fixed"),
    "callbacks of Optuna": ({"callbacks": [print]}, "callbacks: .*early_stop_patience"),
    "no exceptions": ({"catch": 3}, "catch: 3 is no exception class"),
    "a space without names": ({"space": ["x"]}, "space: .*expected params by name"),
    "some exceptions": ({"catch": (ValueError,)}, "catch: .*ValueError.*max_failures"),
    "an empty space": ({"space": {}}, "search space"),
    "a space that cannot be read": ({"space": {"x": "interval(0, "}}, "study.params.x"),
    "duplicates in define-by-run": ({"duplicates": "skip"}, "duplicates"),
    "params fixed in define-by-run": ({"fixed": {"x": 1}}, "fixed has x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_cannot_be_used_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given, problem = WRONG[name]
    options: dict[str, Any] = {"n_trials": 2, **given}
    with pytest.raises(trialbus.SpecError, match=problem) as raised:
        optimize(objectives.minimize_curve, **options)
    assert "trialbus_config" not in str(raised.value)  # no file has the argument
    assert not list(tmp_path.iterdir())


def test_a_function_that_cannot_travel_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = (number for number in range(3))

    def objective(trial: optuna.Trial) -> float:
        return trial.number + next(generator)

    with pytest.raises(trialbus.SpecError, match=r"cannot travel .* generator"):
        optimize(objective, 2)
    with pytest.raises(trialbus.SpecError, match=r"optimize\(objective, n_trials=100, study_name"):
        optimize(optuna.create_study(), objective, n_trials=3)  # type: ignore[misc]
    with pytest.raises(trialbus.SpecError, match="cannot be called"):
        optimize(3, 2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "options", [{}, {"space": {"x": "interval(0, 1)"}}], ids=["Optuna", "space"]
)
@pytest.mark.parametrize("metric", ["accuracy", ["loss", "size"]], ids=["one", "two"])
def test_every_form_minimizes_unless_a_direction_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any], metric: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, _ = _launch(monkeypatch, metric=metric, catch=(), gc_after_trial=True, **options)
    assert set(spec.directions) == {"minimize"}
    assert spec.metrics == ([metric] if isinstance(metric, str) else metric)
    assert not spec.catch_exceptions


def test_trials_that_failed_without_a_complete_trial_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = "no trial was completed; trial 0 failed: ValueError: bad"
    with pytest.raises(trialbus.TrialbusError, match=error):
        _launch(monkeypatch, n_complete=0, n_failed=3, error=error)
    assert _launch(monkeypatch, n_failed=3)[1].trials == []


def _launch(
    monkeypatch: pytest.MonkeyPatch,
    *,
    n_complete: int = 1,
    n_failed: int = 0,
    error: str | None = None,
    **options: Any,
) -> tuple[trialbus.StudySpec, optuna.Study]:
    """Call `optimize` for a study that ends at once, and return its specification and itself."""
    specs: list[trialbus.StudySpec] = []

    def end(plan: launcher.Plan, *_: object, **__: object) -> events.StudyFinished:
        specs.append(plan.spec)
        counts = events.TrialCounts(complete=n_complete, failed=n_failed)
        optuna.create_study(storage=plan.storage.url, study_name=plan.spec.name)
        return events.StudyFinished(
            study="s", submission="1", reason="exhausted", counts=counts, error=error
        )

    monkeypatch.setattr(launcher, "launch_study", end)
    study = optimize(objectives.minimize_curve, 2, show_progress_bar=False, **options)
    return specs[0], study


class OwnSampler(RandomSampler):
    """A sampler of a user, which keeps its argument under another name."""

    def __init__(self, power: float = 1.0) -> None:
        super().__init__(seed=1)
        self.exponent = power


def make_components() -> dict[str, tuple[Any, dict[str, Any]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "tpe": (TPESampler(seed=42, n_startup_trials=5), {"n_startup_trials": 5, "seed": 42}),
            "tpe without a seed": (TPESampler(), {}),
            "random": (RandomSampler(seed=0), {"seed": 0}),
            "cma-es": (CmaEsSampler(sigma0=0.2), {"sigma0": 0.2}),
            "nsga-ii": (NSGAIISampler(population_size=9), {"population_size": 9}),
            "qmc": (
                QMCSampler(qmc_type="halton", scramble=True, seed=3),
                {"qmc_type": "halton", "scramble": True, "seed": 3},
            ),
            "gp": (GPSampler(deterministic_objective=True), {"deterministic_objective": True}),
            "partial": (
                PartialFixedSampler({"x": 1.0}, RandomSampler(seed=4)),
                {"fixed_params": {"x": 1.0}, "base_sampler": {"type": "RandomSampler", "seed": 4}},
            ),
            "median": (
                MedianPruner(3, n_warmup_steps=2),
                {"n_startup_trials": 3, "n_warmup_steps": 2},
            ),
            "hyperband": (HyperbandPruner(max_resource=9), {"max_resource": 9}),
            "halving": (SuccessiveHalvingPruner(), {}),
            "threshold": (ThresholdPruner(upper=3.0), {"upper": 3.0}),
            "patient": (
                PatientPruner(MedianPruner(), 3),
                {"wrapped_pruner": {"type": "MedianPruner"}, "patience": 3},
            ),
            "none": (NopPruner(), {}),
        }


COMPONENTS = make_components()


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_arguments_of_a_sampler_or_pruner_travel(name: str) -> None:
    component, arguments = COMPONENTS[name]
    described = describe_component("sampler", component)
    assert described == {"type": type(component).__name__, **arguments}


def test_a_sampler_whose_arguments_cannot_be_read_back_is_refused() -> None:
    assert describe_component("sampler", OwnSampler())["type"].endswith("OwnSampler")
    used = TPESampler(seed=3)
    optuna.create_study(sampler=used).optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    for sampler in (OwnSampler(power=2.0), used):
        with pytest.raises(trialbus.SpecError, match="cannot travel"):
            describe_component("sampler", sampler)
