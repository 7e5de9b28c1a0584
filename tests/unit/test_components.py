"""Samplers and pruners by name."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from trialbus import (
    CategoricalParam,
    Component,
    FloatParam,
    IntParam,
    Objective,
    SpecError,
    StudySpec,
)
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
    ],
)
def test_a_wrong_sampler_is_refused_with_the_nearest_name(component: Component, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_sampler(spec(component))
    assert words in str(caught.value)


def test_an_argument_that_optuna_refuses_is_shown() -> None:
    with pytest.raises(SpecError, match=r"pruner: PercentilePruner\(percentile=200\): .*0 and 100"):
        build_pruner(Component(type="PercentilePruner", args={"percentile": 200}))
