"""With a seed and nothing ahead, a sampler process gives the suggestions of plain Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import pytest

from support.plain_optuna import ID_OFFSET, PlainOptuna, SamplerRestarted, TrialAsked, TrialTold
from support.suggesters import (
    HYPERBAND,
    MIXED,
    NUMBERS,
    POINTS,
    TWO_OBJECTIVES,
    Start,
    make_spec,
    request_suggestion,
)
from support.until import until
from trialbus import CategoricalParam, FloatParam, IntParam
from trialbus_services.optimizer.genetic_parents import renumber_parents
from trialbus_services.optimizer.sampling.suggester import Suggester


def drop_optimizers(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes without the optimizers that CMA-ES pickles with uninitialised memory."""
    return {key: ":optimizer:" in key or value for key, value in attrs.items()}


def follow(start: Start, plain: PlainOptuna, offset: int = 0) -> Suggester:
    """Compare each suggestion of plain Optuna with a suggester that is told the same results."""
    suggester = start(plain.spec)
    attrs: dict[str, Any] = {}
    for event in plain.run():
        match event:
            case TrialAsked(trial, study_attrs):
                suggestion = request_suggestion(suggester)
                assert suggestion.number == trial.number
                assert suggestion.params == trial.params
                assert suggestion.distributions == trial.distributions
                assert drop_optimizers(suggestion.system_attrs) == drop_optimizers(
                    trial.system_attrs
                )
                attrs |= renumber_parents(suggestion.study_attrs, lambda n: n - offset + ID_OFFSET)
                assert attrs == study_attrs
                suggester.assign_number(suggestion, trial.number + offset)
            case TrialTold(number, state, values, last):
                suggester.tell(number + offset, state, values, last)
            case SamplerRestarted(trials, study_attrs):
                suggester.close()
                suggester = start(plain.spec, trials, study_attrs)
                attrs = study_attrs
    return suggester


ALL = {
    "random": make_spec("RandomSampler"),
    "tpe": make_spec(),
    "tpe-two-objectives": make_spec(objectives=TWO_OBJECTIVES, pruner=None),
    "tpe-hyperband": make_spec(pruner=HYPERBAND, n_trials=60),
    "cma-es": make_spec("CmaEsSampler", params=NUMBERS),
    "cma-es-pruned": make_spec(
        "CmaEsSampler", params=NUMBERS, args={"consider_pruned_trials": True}
    ),
    "nsga-ii": make_spec("NSGAIISampler", args={"population_size": 6}),
    "nsga-ii-two-objectives": make_spec(
        "NSGAIISampler", args={"population_size": 6}, objectives=TWO_OBJECTIVES, pruner=None
    ),
    "qmc": make_spec("QMCSampler", params=NUMBERS),
    "grid": make_spec("GridSampler", params=POINTS, n_trials=18),
    "grid-hyperband": make_spec("GridSampler", params=POINTS, n_trials=18, pruner=HYPERBAND),
    "brute-force": make_spec("BruteForceSampler", params=POINTS, n_trials=18),
    "gp": make_spec("GPSampler", params=NUMBERS, n_trials=9, args={"n_startup_trials": 3}),
}
LIMITED = ("grid", "grid-hyperband", "brute-force")


@pytest.mark.parametrize("name", ALL)
def test_suggestions_are_those_of_plain_optuna(name: str, start: Start) -> None:
    if name == "gp":
        pytest.importorskip("torch")
    plain = PlainOptuna(ALL[name])
    suggester = follow(start, plain)
    assert plain.stopped == (name in LIMITED)
    if plain.stopped:
        until(lambda: suggester.is_exhausted, describe="the end of the grid")
    assert not suggester.is_exhausted or plain.stopped


@pytest.mark.parametrize(
    "name", ["tpe", "tpe-hyperband", "cma-es", "nsga-ii", "nsga-ii-two-objectives", "qmc", "grid"]
)
def test_suggestions_after_a_restart_are_those_of_plain_optuna(name: str, start: Start) -> None:
    follow(start, PlainOptuna(ALL[name], restart_at=ALL[name].n_trials // 3))


def suggest_conditionally(trial: optuna.Trial) -> None:
    """Suggest the params of `CONDITIONAL` as a script for plain Optuna does."""
    trial.suggest_float("lr", 1e-4, 1, log=True)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    if kind in ("a", "b") and trial.suggest_int("depth", 1, 4) == 2:
        trial.suggest_float("last", 0, 1)
    if kind == "c":
        trial.suggest_categorical("act", ["x", "y"])


CONDITIONAL = {
    "lr": MIXED["lr"],
    "last": FloatParam(low=0, high=1, when={"depth": 2}),  # before the param of its condition
    "depth": IntParam(low=1, high=4, when={"kind": ("a", "b")}),
    "kind": MIXED["kind"],
    "act": CategoricalParam(choices=("x", "y"), when={"kind": "c"}),
}


@pytest.mark.parametrize(
    ("sampler", "args"),
    [
        ("RandomSampler", {}),
        ("TPESampler", {"n_startup_trials": 5}),
        ("TPESampler", {"n_startup_trials": 5, "group": True, "multivariate": True}),
        ("TPESampler", {"n_startup_trials": 5, "multivariate": False}),
        ("NSGAIISampler", {"population_size": 6}),
        ("QMCSampler", {}),
        ("GPSampler", {"n_startup_trials": 6}),
    ],
    ids=str,
)
def test_conditional_params_are_suggested_as_in_a_script_of_plain_optuna(
    sampler: str, args: dict[str, Any], start: Start
) -> None:
    if sampler == "GPSampler":
        pytest.importorskip("torch")
    n_trials = 9 if sampler == "GPSampler" else 40
    study = make_spec(sampler, args=args, params=CONDITIONAL, n_trials=n_trials)
    assert tuple(study.space) == ("lr", "kind", "depth", "last", "act")
    follow(start, PlainOptuna(study, define=suggest_conditionally))
    if sampler == "TPESampler":
        follow(start, PlainOptuna(study, define=suggest_conditionally, restart_at=13))


@pytest.mark.parametrize("name", ["tpe", "nsga-ii"])
def test_the_study_may_number_its_trials_differently_from_its_copy(name: str, start: Start) -> None:
    follow(start, PlainOptuna(ALL[name]), offset=1000)
