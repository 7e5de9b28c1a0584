"""Keys of hydra-optuna-sweeper: what each means for the study, and which values are refused."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.trialbus_sweeper._config import TrialbusSweeperConf
from trialbus.errors import SpecError, TrialbusError
from trialbus.messages import events
from trialbus.study.search_space import FloatParam
from trialbus.study.spec import StudySpec
from trialbus_services.sweeper.failures import MetricWatch
from trialbus_services.sweeper.search_space import SweepSpace
from trialbus_services.sweeper.settings import (
    SweepSettings,
    build_spec,
    clean_component,
    name_study,
    read_settings,
)

SPACE = SweepSpace({"x": FloatParam(low=0, high=1)})


def read(**keys: Any) -> SweepSettings:
    sweeper = OmegaConf.merge(OmegaConf.structured(TrialbusSweeperConf(sampler={})), keys)
    config = OmegaConf.create({"hydra": {"sweeper": sweeper}})
    assert isinstance(config, DictConfig)
    return read_settings(config)


def build(space: SweepSpace = SPACE, **keys: Any) -> StudySpec:
    settings = read(**keys)
    sampler = settings.sampler if isinstance(settings.sampler, dict) else {}
    pruner = settings.pruner if isinstance(settings.pruner, dict) else None
    return build_spec(
        settings, "s", space, settings.n_trials, sampler=sampler or {"type": "x"}, pruner=pruner
    )


def test_every_key_has_a_default() -> None:
    settings = read()
    assert (settings.n_trials, settings.n_jobs, settings.max_failure_rate) == (20, 2, 0.0)
    assert (settings.directions, settings.metrics, settings.storage_url) == (
        ["minimize"],
        ["value"],
        None,
    )


def test_the_sampler_is_that_of_the_target_without_nulls() -> None:
    spec = build(
        sampler={"_target_": "optuna.samplers.TPESampler", "seed": 123, "n_startup_trials": 5}
        | {"multivariate": None, "consider_prior": True}
    )
    assert (spec.sampler.type, spec.sampler.args, spec.seed) == (
        "TPESampler",
        {"n_startup_trials": 5},
        123,
    )


def test_the_sampler_of_several_objectives_has_the_name_that_optuna_gives_it_now() -> None:
    component = clean_component(
        {"_target_": "optuna.samplers.MOTPESampler", "n_ehvi_candidates": 24}
    )
    assert component == {"type": "TPESampler"}


def test_a_sampler_of_ones_own_keeps_its_path() -> None:
    assert clean_component({"_target_": "lab.samplers.Mine", "alpha": 1}) == {
        "type": "lab.samplers.Mine",
        "alpha": 1,
    }


def test_several_directions_are_several_objectives() -> None:
    spec = build(direction=["minimize", "maximize"])
    assert spec.directions == ["minimize", "maximize"]
    assert spec.metrics == ["value_0", "value_1"]


def test_a_study_without_a_name_has_a_new_one_each_time() -> None:
    assert name_study(read(study_name="mine"), "app") == "mine"
    first, second = (name_study(read(), "app") for _ in range(2))
    assert first != second
    assert first.startswith("app-")


def test_a_storage_may_be_written_as_the_object_of_a_url() -> None:
    storage = {"_target_": "optuna.storages.RDBStorage", "url": "sqlite:///a.db"}
    assert read(storage=storage).storage_url == "sqlite:///a.db"


def test_fields_of_the_study_are_passed_on() -> None:
    spec = build(study={"timeout_s": 60, "nan": "fail"})
    assert (spec.timeout_s, spec.nan) == (60, "fail")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"n_trials": 0}, "hydra.sweeper: n_trials 0 is below 1"),
        ({"max_failure_rate": 1.5}, "1.5 is no share"),
        ({"direction": "minimise"}, "hydra.sweeper.direction"),
        ({"jobs": "thread"}, "hydra.sweeper.jobs: 'thread'"),
        ({"metric": ["a", "b"]}, "names 2 metrics"),
        ({"pruner": {"type": "MedianPruner"}}, "metric is null"),
        ({"study": {"name": "a"}}, "expected hydra.sweeper.study_name"),
        ({"study": {"timeout": 3}}, "hydra.sweeper.timeout: no such key"),
    ],
    ids=["count", "share", "direction", "jobs", "metrics", "pruner", "name", "field"],
)
def test_a_wrong_value_is_refused_with_its_key(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        build(**keys)


def test_a_removed_argument_is_refused_where_it_would_make_a_difference() -> None:
    with pytest.raises(SpecError, match=r"hydra.sweeper.sampler.n_ehvi_candidates: 30: TPE"):
        clean_component({"_target_": "optuna.samplers.MOTPESampler", "n_ehvi_candidates": 30})


def test_a_storage_that_is_another_object_is_refused() -> None:
    with pytest.raises(SpecError, match="expected a URL"):
        _ = read(storage={"_target_": "optuna.storages.InMemoryStorage"}).storage_url


def test_a_sweep_that_varies_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="nothing is varied"):
        build(SweepSpace())


def test_a_sweep_whose_pruner_judges_a_metric_that_no_job_reports_ends_after_the_first_trial() -> (
    None
):
    report = events.EvaluationComplete(study="s", trial=0, step=0, metrics={"loss": 1.0})
    end = events.TrialClosed(study="s", trial=0, state="complete", values=[1.0])
    watch = MetricWatch("los")
    watch.follow(report)
    with pytest.raises(TrialbusError, match=r"hydra.sweeper.metric 'los'.*did you mean 'loss'"):
        watch.follow(end)
    for metric in ("loss", None):
        watch = MetricWatch(metric)
        watch.follow(report)
        watch.follow(end)
