"""How far a study has come."""

from __future__ import annotations

import random
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from trialbus import FloatParam, Objective, StudySpec
from trialbus.study.spec import Direction
from trialbus_services.optimizer.convergence import Progress


def progress(*directions: Direction, **more: Any) -> Progress:
    objectives = tuple(
        Objective(metric=f"m{i}", direction=direction) for i, direction in enumerate(directions)
    )
    params: dict[str, Any] = {"x": FloatParam(low=0, high=1)}
    return Progress(StudySpec(name="s", params=params, objectives=objectives, n_trials=9, **more))


def take(found: Progress, *values: float, feasible: bool = True) -> str | None:
    found.add_trial(TrialState.COMPLETE, values, is_feasible=feasible)
    return found.reason_to_end


def test_a_target_is_reached_in_the_direction_of_the_objective() -> None:
    up, down = progress("maximize", target=2.0), progress("minimize", target=2.0)
    assert take(up, 1.9) is None
    assert take(down, 2.1) is None
    assert take(up, 2.0) == "2 reaches study.target=2"
    assert take(down, 1.5) == "1.5 reaches study.target=2"


def test_only_a_feasible_trial_reaches_it() -> None:
    found = progress("maximize", target=1.0)
    assert take(found, 5.0, feasible=False) is None
    assert take(found, 1.0)


def test_pruned_trials_bring_no_progress_and_failed_ones_do_not_count() -> None:
    found = progress("maximize", early_stop_patience=2)
    take(found, 1.0)
    for _ in range(5):
        found.add_trial(TrialState.FAIL, None)
    found.add_trial(TrialState.PRUNED, None)
    assert found.reason_to_end is None
    found.add_trial(TrialState.PRUNED, None)
    assert found.reason_to_end


def test_a_better_value_within_min_delta_is_the_best_and_no_progress() -> None:
    found = progress("minimize", early_stop_patience=2, early_stop_min_delta=0.5, target=0.0)
    take(found, 1.0)
    take(found, 0.8)
    assert take(found, 0.6) == "2 trials brought no progress (study.early_stop_patience=2)"


def test_with_several_objectives_one_that_is_better_in_any_is_progress() -> None:
    found = progress("maximize", "minimize", early_stop_patience=2)
    for values in ((1, 1), (2, 2), (0, 0)):
        assert take(found, *values) is None
    assert take(found, 1.0, 1.0) is None  # has been there
    assert take(found, 1.5, 2.0)  # worse than (2, 2)


def test_its_front_is_optunas() -> None:
    chance = random.Random(3)
    found = progress("maximize", "minimize")
    study = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(200):
        values = [chance.randint(0, 30), chance.randint(0, 30)]
        study.add_trial(create_trial(values=values))
        take(found, *values)
    best = {tuple(trial.values) for trial in study.best_trials}
    assert {(-a, b) for a, b in found._front} == best  # pyright: ignore[reportPrivateUsage]


def test_the_worst_is_finite_in_each_objective() -> None:
    found = progress("maximize", "minimize")
    assert found.worst is None
    take(found, 1.0, float("inf"))
    assert found.worst is None
    take(found, 2.0, 7.0)
    take(found, 5.0, 3.0)
    assert found.worst == [1.0, 7.0]
