"""Progress: target, patience, Pareto front and worst values of a study."""

from __future__ import annotations

import random
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from trialbus import FloatParam, Objective, StudySpec
from trialbus.study.spec import Direction
from trialbus_services.optimizer.convergence import Progress


def make_progress(*directions: Direction, **more: Any) -> Progress:
    objectives = tuple(
        Objective(metric=f"m{i}", direction=direction) for i, direction in enumerate(directions)
    )
    params: dict[str, Any] = {"x": FloatParam(low=0, high=1)}
    return Progress(StudySpec(name="s", params=params, objectives=objectives, n_trials=9, **more))


def add_trial(progress: Progress, *values: float, feasible: bool = True) -> str | None:
    progress.add_trial(TrialState.COMPLETE, values, is_feasible=feasible)
    return progress.reason_to_end


def test_a_target_is_reached_in_the_direction_of_the_objective() -> None:
    up, down = make_progress("maximize", target=2.0), make_progress("minimize", target=2.0)
    assert add_trial(up, 1.9) is None
    assert add_trial(down, 2.1) is None
    assert add_trial(up, 2.0) == "2 reaches study.target=2"
    assert add_trial(down, 1.5) == "1.5 reaches study.target=2"


def test_only_a_feasible_trial_reaches_the_target() -> None:
    progress = make_progress("maximize", target=1.0)
    assert add_trial(progress, 5.0, feasible=False) is None
    assert add_trial(progress, 1.0)


def test_pruned_trials_bring_no_progress_and_failed_trials_do_not_count() -> None:
    progress = make_progress("maximize", early_stop_patience=2)
    add_trial(progress, 1.0)
    for _ in range(5):
        progress.add_trial(TrialState.FAIL, None)
    progress.add_trial(TrialState.PRUNED, None)
    assert progress.reason_to_end is None
    progress.add_trial(TrialState.PRUNED, None)
    assert progress.reason_to_end


def test_a_better_value_within_min_delta_is_the_best_and_no_progress() -> None:
    progress = make_progress(
        "minimize", early_stop_patience=2, early_stop_min_delta=0.5, target=0.0
    )
    add_trial(progress, 1.0)
    add_trial(progress, 0.8)
    assert add_trial(progress, 0.6) == "2 trials brought no progress (study.early_stop_patience=2)"


def test_with_several_objectives_a_trial_that_is_better_in_any_objective_is_progress() -> None:
    progress = make_progress("maximize", "minimize", early_stop_patience=2)
    for values in ((1, 1), (2, 2), (0, 0)):
        assert add_trial(progress, *values) is None
    assert add_trial(progress, 1.0, 1.0) is None  # not better than (1, 1)
    assert add_trial(progress, 1.5, 2.0)  # worse than (2, 2)


def test_the_front_is_the_pareto_front_of_optuna() -> None:
    chance = random.Random(3)
    progress = make_progress("maximize", "minimize")
    study = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(200):
        values = [chance.randint(0, 30), chance.randint(0, 30)]
        study.add_trial(create_trial(values=values))
        add_trial(progress, *values)
    best = {tuple(trial.values) for trial in study.best_trials}
    assert {(-a, b) for a, b in progress._front} == best  # pyright: ignore[reportPrivateUsage]


def test_the_worst_is_finite_in_each_objective() -> None:
    progress = make_progress("maximize", "minimize")
    assert progress.worst is None
    add_trial(progress, 1.0, float("inf"))
    assert progress.worst is None
    add_trial(progress, 2.0, 7.0)
    add_trial(progress, 5.0, 3.0)
    assert progress.worst == [1.0, 7.0]
