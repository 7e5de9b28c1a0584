"""The number of trials of a study with a finite search space, from which progress is computed."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

import trialbus
from trialbus.study.search_space import Param
from trialbus_services.optimizer.registry import build_sampler
from trialbus_services.optimizer.sampling.expected_trials import count_expected_trials

LETTERS = trialbus.CategoricalParam(choices=("u", "v", "w"))
NUMBERS = trialbus.IntParam(low=1, high=4)
FINITE: dict[str, Param] = {"a": NUMBERS, "b": LETTERS}


def count(
    params: dict[str, Param],
    sampler: str = "TPESampler",
    study: optuna.Study | None = None,
    args: dict[str, Any] | None = None,
    **fields: Any,
) -> int:
    """Return the number of trials of a study of at most 50 trials."""
    objectives = (trialbus.Objective(metric="m"),)
    component = trialbus.Component(type=sampler, args=args or {})
    settings: dict[str, Any] = {"n_trials": 50, "sampler": component, **fields}
    spec = trialbus.StudySpec(name="s", params=params, objectives=objectives, **settings)
    return count_expected_trials(spec, build_sampler(spec), study.trials if study else [])


@pytest.mark.parametrize("sampler", ["GridSampler", "BruteForceSampler"])
def test_a_sampler_that_enumerates_ends_with_the_last_point(sampler: str) -> None:
    assert count(FINITE, sampler) == 12
    assert count(FINITE, sampler, n_trials=5) == 5


def test_a_space_of_choices_ends_with_the_last_point_unless_points_may_repeat() -> None:
    choices: dict[str, Param] = {"a": LETTERS, "b": LETTERS}
    assert count(choices) == 9
    assert count(choices, duplicates="allow") == 50
    assert count(choices, duplicates="reuse") == 50
    assert count(FINITE) == 50
    assert count(FINITE, duplicates="skip") == 12


def test_points_that_violate_a_constraint_do_not_count() -> None:
    assert count(FINITE, "BruteForceSampler", constraints=("a <= 2",)) == 6


def test_trials_beside_the_points_count_in_addition() -> None:
    study = optuna.create_study()
    for number in (1, 1, 2):
        trial = study.ask()
        trial.suggest_int("a", 1, 4)
        trial.suggest_categorical("b", LETTERS.labels)
        study.tell(trial, number)
    study.enqueue_trial({"a": 4, "b": "w"})
    n_taken = len({tuple(trial.params.items()) for trial in study.trials[:3]})
    assert count(FINITE, "BruteForceSampler", study) == 3 + 12 - n_taken


def test_an_enqueued_trial_that_is_no_point_of_the_grid_counts_in_addition() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.3})
    study.enqueue_trial({"x": 0.5})
    params: dict[str, Param] = {"x": trialbus.FloatParam(low=0, high=1)}
    grid = {"search_space": {"x": [0.0, 0.5, 1.0]}}
    assert count(params, "GridSampler", study, grid) == 4
