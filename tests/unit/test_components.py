"""Samplers and pruners by name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler

from trialbus import (
    CategoricalParam,
    Component,
    FloatParam,
    IntParam,
    Objective,
    SpecError,
    StudySpec,
)
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.enumerating_samplers import Grid
from trialbus_services.optimizer.registry import build_pruner, build_sampler


def spec(sampler: Component, **params: object) -> StudySpec:
    return StudySpec(
        name="s",
        params=params or {"x": FloatParam(low=0, high=1)},  # type: ignore[arg-type]
        objectives=(Objective(metric="m"),),
        n_trials=1,
        sampler=sampler,
        seed=7,
    )


def test_a_pruner_may_wrap_another() -> None:
    inner = {"type": "MedianPruner", "n_startup_trials": 2}
    pruner = build_pruner(
        Component(type="PatientPruner", args={"wrapped_pruner": inner, "patience": 3})
    )
    assert isinstance(pruner, optuna.pruners.PatientPruner)


def test_a_class_of_the_user_s_own_is_imported_from_where_the_optimizer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_pruners.py").write_text(
        "import optuna\n"
        "class Grumpy(optuna.pruners.BasePruner):\n"
        "    def __init__(self, above, wrapped=None):\n"
        "        self.above, self.wrapped = above, wrapped\n"
        "    def prune(self, study, trial):\n"
        "        return trial.value > self.above\n"
        "class Nothing: pass\n"
    )
    pruner = build_pruner(
        Component(
            type="PatientPruner",
            args={"wrapped_pruner": {"_target_": "my_pruners.Grumpy", "above": 3}, "patience": 1},
        )
    )
    assert pruner._wrapped_pruner.above == 3  # type: ignore[attr-defined]
    for name, words in [
        (
            "my_pruners.Grumpier",
            "cannot be imported: my_pruners has no 'Grumpier'; did you mean 'Grumpy'",
        ),
        ("no_such_module.Pruner", "there is no module 'no_such_module' in '"),
        ("my_pruners.Nothing", "is not a subclass of optuna's BasePruner"),
    ]:
        with pytest.raises(SpecError, match=words):
            build_pruner(Component(type=name))
    with pytest.raises(SpecError, match=r"pruner\.below: .*did you mean|pruner\.below.*above"):
        build_pruner(Component(type="my_pruners.Grumpy", args={"below": 3}))


def test_no_pruner_prunes_nothing() -> None:
    assert isinstance(build_pruner(None), optuna.pruners.NopPruner)


def test_the_grid_comes_from_the_params() -> None:
    sampler = build_sampler(
        spec(
            Component(type="GridSampler"),
            kind=CategoricalParam(choices=("a", "b")),
            n=IntParam(low=1, high=5, step=2),
            x=FloatParam(low=0, high=0.3, step=0.1),
        )
    )
    assert isinstance(sampler, Grid)
    points = {tuple(point.values()) for point in sampler.list_points()}
    assert points == {
        (kind, n, x) for kind in ("a", "b") for n in (1, 3, 5) for x in (0.0, 0.1, 0.2, 0.3)
    }


def test_a_range_without_a_step_is_no_grid() -> None:
    with pytest.raises(SpecError, match=r"study\.params\.x: a grid needs choices or a step"):
        build_sampler(spec(Component(type="GridSampler")))


def test_a_sampler_within_a_sampler_has_the_study_s_seed_too() -> None:
    def suggested() -> float:
        base = {"type": "RandomSampler"}
        args = {"fixed_params": {"x": 0.5}, "base_sampler": base}
        sampler = build_sampler(spec(Component(type="PartialFixedSampler", args=args)))
        trial = optuna.create_study(sampler=sampler).ask()
        assert trial.suggest_float("x", 0, 1) == 0.5
        return trial.suggest_float("y", 0, 1)

    assert suggested() == suggested()


def test_a_resumed_sampler_does_not_suggest_again_what_it_suggested_before() -> None:
    def first(n_before: int) -> float:
        study = optuna.create_study(
            sampler=build_sampler(spec(Component(type="RandomSampler")), n_before)
        )
        return study.ask().suggest_float("x", 0, 1)

    assert first(0) == optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=7)
    ).ask().suggest_float("x", 0, 1)
    assert first(5) != first(0)


def test_seeds_stay_within_32_bits_and_move_only_where_they_give_no_identity() -> None:
    def build(type_: str, n_before: int) -> BaseSampler:
        component = Component(type=type_, args={"seed": 2**32 - 1})
        return build_sampler(spec(component, x=IntParam(low=1, high=9)), n_before)

    suggested, expected = (
        optuna.create_study(sampler=sampler).ask().suggest_float("x", 0, 1)
        for sampler in (build("RandomSampler", 5), RandomSampler(seed=4))
    )
    assert suggested == expected
    first, second = (build("GridSampler", n) for n in (0, 5))
    assert isinstance(first, Grid)
    assert isinstance(second, Grid)
    assert first.list_points() == second.list_points()
    assert build("QMCSampler", 5)._seed == 2**32 - 1  # type: ignore[attr-defined]


def load_hub_module(package: str) -> ModuleType:
    """Load a package as `optunahub.load_module` does."""
    if package != "samplers/mine":
        raise OSError("could not resolve host: github.com")
    module = ModuleType("optunahub_registry.package.samplers.mine")
    for name in ("Mine", "Other"):
        setattr(module, name, type(name, (RandomSampler,), {"__module__": module.__name__}))
    return module


HUB_SAMPLER = """
import optunahub

class Steps(optunahub.samplers.SimpleBaseSampler):
    def __init__(self, search_space=None, step=0.1):
        super().__init__(search_space)
        self.step = step

    def sample_relative(self, study, trial, search_space):
        return {name: self.step * trial.number for name in search_space}
"""


def test_the_package_optunahub_loads_a_sampler_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optunahub", reason="the package optunahub is not installed")
    registry = tmp_path / "github.com" / "optuna" / "optunahub-registry" / "main" / "package"
    package = registry / "samplers" / "steps"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(HUB_SAMPLER)
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(tmp_path))
    args = {"step": 0.25}
    sampler = build_sampler(spec(Component(type="optunahub:samplers/steps", args=args)))
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    assert [trial.params["x"] for trial in study.trials[1:]] == [0.25, 0.5, 0.75]
    with pytest.raises(SpecError, match=r"sampler\.stepp.*did you mean 'step'"):
        build_sampler(spec(Component(type="optunahub:samplers/steps", args={"stepp": 1})))


def test_a_sampler_of_optunahub_is_loaded_by_name_where_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = SimpleNamespace(load_module=load_hub_module)
    monkeypatch.setitem(sys.modules, "optunahub", hub)  # type: ignore[arg-type]
    mine = spec(Component(type="optunahub:samplers/mine:Mine"))
    assert type(build_sampler(mine)).__name__ == "Mine"
    for name in ("optunahub", "optunahub.samplers.mine"):
        build_sampler(mine, allowed=AllowedModules([name]))
    with pytest.raises(SpecError, match=r"may not import.*optunahub\.samplers\.mine"):
        build_sampler(mine, allowed=AllowedModules())
    for type_, words in [
        ("optunahub:samplers/mine", "has 2 classes of BaseSampler"),
        ("optunahub:samplers/mine:Mien", "has no 'Mien'; did you mean 'Mine'"),
        (
            "optunahub:samplers/absent",
            "cannot be loaded from OptunaHub: OSError: could not resolve",
        ),
    ]:
        with pytest.raises(SpecError, match=words):
            build_sampler(spec(Component(type=type_)))


@pytest.mark.parametrize(
    ("component", "words"),
    [
        (
            Component(type="TPESampelr"),
            "sampler.type: 'TPESampelr' is not a sampler of Optuna; did you mean 'TPESampler'",
        ),
        (Component(type="os.system"), "is not a subclass of optuna's BaseSampler"),
        (
            Component(type="TPESampler", args={"n_startup_trial": 3}),
            "TPESampler has no such argument; did you mean 'n_startup_trials'",
        ),
        (
            Component(type="TPESampler", args={"n_startup_trials": "abc"}),
            "sampler.n_startup_trials: 'abc' is not an argument of TPESampler (expected int)",
        ),
        (
            Component(type="TPESampler", args={"multivariate": "maybe"}),
            "sampler.multivariate: 'maybe' is not an argument of TPESampler (expected bool | null)",
        ),
        (
            Component(type="TPESampler", args={"gamma": "my_gamma"}),
            "sampler.gamma: 'my_gamma' is text, and TPESampler needs a function",
        ),
        (
            Component(
                type="QMCSampler",
                args={"independent_sampler": {"type": "RandomSampler", "seed": -1}},
            ),
            "sampler.independent_sampler.seed: -1 is not a seed",
        ),
        (
            Component(
                type="PartialFixedSampler",
                args={"fixed_params": {"x": 7}, "base_sampler": {"type": "RandomSampler"}},
            ),
            "sampler.fixed_params.x: 7 is outside of",
        ),
        (
            Component(type="GridSampler", args={"search_space": {"x": [0.5, 7]}}),
            "sampler.search_space.x: 7 is outside of",
        ),
        (
            Component(type="optunahub:samplers/nothing"),
            "sampler.type: 'optunahub:samplers/nothing' needs the package optunahub",
        ),
    ],
)
def test_a_wrong_sampler_is_refused_with_the_nearest_name(
    component: Component, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optunahub", None)  # type: ignore[arg-type]
    with pytest.raises(SpecError) as caught:
        build_sampler(spec(component))
    assert words in str(caught.value)


def test_an_argument_that_optuna_refuses_is_shown() -> None:
    with pytest.raises(SpecError, match=r"pruner: PercentilePruner\(percentile=200\): .*0 and 100"):
        build_pruner(Component(type="PercentilePruner", args={"percentile": 200}))
