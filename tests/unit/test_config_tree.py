"""The tree of configs has a file for each sampler, pruner and crossover of Optuna."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import optuna
import pytest
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.samplers._ga import BaseGASampler

from trialbus import CategoricalParam, Objective, SpecError, StudySpec
from trialbus.study.spec import NOT_WRITTEN, Component
from trialbus_services.config.composing.schema import build_schema
from trialbus_services.optimizer.registry import build_pruner, build_sampler

TREE = Path(__file__).parents[2] / "config" / "trialbus_config"

#: Arguments that the study has, and therefore no file; a config may still set them.
STUDY_ARGUMENTS = {"seed": 3, "search_space": {"x": [1, 2]}}
#: Deprecated arguments of Optuna, which are accepted with Optuna's warning.
DEPRECATED_ARGUMENTS = {
    "consider_prior": True,
    "prior_weight": 1.0,
    "consider_magic_clip": True,
    "consider_endpoints": False,
    "warn_independent_sampling": True,
    "restart_strategy": None,
    "inc_popsize": -1,
}
#: Functions and trials, which no file can hold: only a user's class passes them.
CODE_ARGUMENTS = {
    *("constraints_func", "gamma", "weights", "source_trials"),
    *("elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy"),
}


def list_classes(module: ModuleType, *bases: type) -> list[str]:
    """Return the names of the classes that a module of Optuna exports."""
    names = [name for name in module.__all__ if inspect.isclass(getattr(module, name))]
    return [
        name
        for name in names
        if issubclass(getattr(module, name), bases[0]) and getattr(module, name) not in bases
    ]


SAMPLERS = list_classes(optuna.samplers, BaseSampler, BaseGASampler)
PRUNERS = list_classes(optuna.pruners, BasePruner)


def read_files(group: str) -> dict[str, dict[str, Any]]:
    """Return the content of a group's files by the class that the file chooses.

    The files of phases, which change arguments of another file, are left out.
    """
    contents = [yaml.safe_load(path.read_text()) for path in (TREE / group).glob("*.yaml")]
    return {content["type"]: content for content in contents if "defaults" not in content}


@pytest.mark.parametrize(
    ("section", "file"),
    [
        ("bus", "bus/local"),
        ("optimizer", "optimizer/default"),
        ("worker", "worker/default"),
        ("launcher", "launcher/local"),
        ("callbacks", "callbacks/default"),
    ],
)
def test_the_file_of_a_section_s_defaults_has_every_field_as_the_type_has_it(
    section: str, file: str
) -> None:
    defaults = cast(dict[str, Any], OmegaConf.to_container(build_schema()[section]))
    content = cast(dict[str, Any], yaml.safe_load((TREE / f"{file}.yaml").read_text()))
    expected = {key: content[key] if value == "???" else value for key, value in defaults.items()}
    assert {"keys": None} | content == {"keys": None} | expected


def test_every_section_of_the_schema_is_a_group_and_every_group_is_chosen() -> None:
    entries: list[Any] = yaml.safe_load((TREE / "config.yaml").read_text())["defaults"]
    groups = {
        str(group) for entry in entries if isinstance(entry, dict) for group in cast(Any, entry)
    }
    assert set(map(str, build_schema())) <= groups
    for group in map(str, build_schema()):
        assert list((TREE / group).glob("*.yaml"))


def test_a_study_s_schema_has_the_fields_of_its_specification() -> None:
    fields = set(StudySpec.__struct_fields__) - NOT_WRITTEN
    assert set(build_schema().study) == fields | {"objective"}
    with pytest.raises(ValidationError, match="could not be converted to Integer"):
        build_schema().study.n_trials = "many"


@pytest.mark.parametrize(
    "path", sorted(TREE.rglob("*.yaml")), ids=lambda path: str(path.relative_to(TREE))
)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert "#" in path.read_text(), "no comment"


def make_component(group: str, name: str, **args: Any) -> Component:
    """Return the component in the file of a class, with some arguments replaced."""
    content = read_files(group)[name] | args
    del content["type"]
    return Component(type=name, args=content)


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
    arguments = set(inspect.signature(getattr(module, name)).parameters)
    missing = arguments - read_files(group)[name].keys()
    assert missing <= STUDY_ARGUMENTS.keys() | DEPRECATED_ARGUMENTS.keys() | CODE_ARGUMENTS


def build_from_file(name: str, **args: Any) -> BaseSampler:
    """Build a sampler from the file of its class, with some arguments replaced."""
    if name == "PartialFixedSampler":
        args = {"fixed_params": {"x": 1}} | args
    return build_sampler(
        StudySpec(
            name="s",
            params={"x": CategoricalParam(choices=(1, 2))},
            objectives=(Objective(metric="m"),),
            n_trials=1,
            sampler=make_component("sampler", name, **args),
        )
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_s_file_builds_it(name: str) -> None:
    assert isinstance(build_from_file(name), getattr(optuna.samplers, name))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_argument_that_a_file_leaves_out_is_taken(name: str) -> None:
    arguments = inspect.signature(getattr(optuna.samplers, name)).parameters
    extra = {n: v for n, v in {**STUDY_ARGUMENTS, **DEPRECATED_ARGUMENTS}.items() if n in arguments}
    assert isinstance(build_from_file(name, **extra), getattr(optuna.samplers, name))


@pytest.mark.parametrize("name", ["NSGAIISampler", "NSGAIIISampler"])
def test_crossover_and_mutation_are_chosen_by_name(name: str) -> None:
    for crossover in list_classes(optuna.samplers.nsgaii, optuna.samplers.nsgaii.BaseCrossover):
        sampler = build_from_file(
            name,
            population_size=4,
            crossover={"type": crossover},
            mutation={"type": "PolynomialMutation", "eta": 10.0},
        )
        strategy = cast(Any, sampler)._child_generation_strategy
        assert type(strategy._crossover).__name__ == crossover
        assert type(strategy._mutation).__name__ == "PolynomialMutation"
    with pytest.raises(SpecError, match=r"sampler.mutation.type: .* is not a mutation of Optuna"):
        build_from_file(name, mutation={"type": "Polynomial"})
    with pytest.raises(SpecError, match=r"'os.system' is not a subclass of optuna's BaseCrossover"):
        build_from_file(name, crossover={"_target_": "os.system"})


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_s_file_builds_it(name: str) -> None:
    args = {"upper": 1.0} if name == "ThresholdPruner" else {}
    assert type(build_pruner(make_component("pruner", name, **args))).__name__ == name
