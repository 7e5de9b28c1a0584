"""The tree of configs has a file for everything that Optuna has to choose from."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import yaml
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.samplers._ga import BaseGASampler

from trialbus import CategoricalParam, Objective, StudySpec
from trialbus.spec import Component
from trialbus_services.optimizer.components import build_pruner, build_sampler

TREE = Path(__file__).parents[2] / "config" / "trialbus_config"

#: Arguments that no file has: the study's own settings, code (for a class of one's own), and what
#: Optuna has given up.
LEFT_OUT = {
    *("seed", "search_space", "constraints_func"),
    *("gamma", "weights", "mutation", "crossover", "source_trials"),
    *("elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy"),
    *("consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints"),
    *("warn_independent_sampling", "restart_strategy", "inc_popsize", "bootstrap_count"),
}


def public(module: ModuleType, *bases: type) -> list[str]:
    """Names of the classes that a module of Optuna offers."""
    found = [name for name in module.__all__ if inspect.isclass(getattr(module, name))]
    return [
        name
        for name in found
        if issubclass(getattr(module, name), bases[0]) and getattr(module, name) not in bases
    ]


SAMPLERS = public(optuna.samplers, BaseSampler, BaseGASampler)
PRUNERS = public(optuna.pruners, BasePruner)


def files(group: str) -> dict[str, dict[str, Any]]:
    """Return the files of a group by the class they choose."""
    read = [yaml.safe_load(path.read_text()) for path in (TREE / group).glob("*.yaml")]
    return {found["type"]: found for found in read}


def component(group: str, name: str, **args: Any) -> Component:
    """Return what the file of a class comes to, with some arguments of it changed."""
    found = files(group)[name] | args
    del found["type"]
    return Component(type=name, args=found)


@pytest.mark.parametrize(
    ("module", "group", "name"),
    [
        *((optuna.samplers, "sampler", name) for name in SAMPLERS),
        *((optuna.pruners, "pruner", name) for name in PRUNERS),
    ],
    ids=[*SAMPLERS, *PRUNERS],
)
def test_every_class_of_optuna_can_be_chosen_with_its_arguments(
    module: ModuleType, group: str, name: str
) -> None:
    arguments = set(inspect.signature(getattr(module, name)).parameters) - LEFT_OUT
    assert arguments <= files(group)[name].keys()


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "GPSampler"])
def test_every_sampler_s_file_builds_it(name: str) -> None:
    args = {"fixed_params": {"x": 1}} if name == "PartialFixedSampler" else {}
    spec = StudySpec(
        name="s",
        params={"x": CategoricalParam(choices=(1, 2))},
        objectives=(Objective(metric="m"),),
        n_trials=1,
        sampler=component("sampler", name, **args),
    )
    assert type(build_sampler(spec)).__name__ == name


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_s_file_builds_it(name: str) -> None:
    args = {"upper": 1.0} if name == "ThresholdPruner" else {}
    assert type(build_pruner(component("pruner", name, **args))).__name__ == name
