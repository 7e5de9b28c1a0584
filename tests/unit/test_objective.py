"""Objective values of curves, and the errors of wrong aggregations."""

from __future__ import annotations

import math

import pytest

from trialbus import FloatParam, Objective, SpecError, StudySpec
from trialbus.study.search_space import Param
from trialbus_services.optimizer.objective import compute_objective, parse_aggregation
from trialbus_services.optimizer.outcome import Judge

CURVE = {2: 0.8, 0: 0.5, 1: 0.9}  # not in the order of its steps


@pytest.mark.parametrize(
    ("aggregate", "direction", "expected"),
    [
        ("last", "maximize", 0.8),
        ("best", "maximize", 0.9),
        ("best", "minimize", 0.5),
        ("mean_last(2)", "maximize", 0.85),
        ("mean_last(10)", "maximize", (0.5 + 0.9 + 0.8) / 3),
        ("ema(0.5)", "maximize", 0.75),
        ("at_step(1)", "maximize", 0.9),
    ],
)
def test_the_objective_value_is_aggregated_in_the_order_of_the_steps(
    aggregate: str, direction: str, expected: float
) -> None:
    objective = Objective(metric="m", direction=direction, aggregate=aggregate)  # type: ignore[arg-type]
    assert compute_objective(CURVE, objective) == pytest.approx(expected)


def test_a_step_that_was_not_reported_has_no_value() -> None:
    assert compute_objective(CURVE, Objective(metric="m", aggregate="at_step(7)")) is None


def test_an_empty_curve_has_no_value() -> None:
    assert compute_objective({}, Objective(metric="m")) is None


def test_best_ignores_nan_unless_all_values_are_nan() -> None:
    best = Objective(metric="m", aggregate="best")
    assert compute_objective({0: math.nan, 1: 0.3}, best) == 0.3
    value = compute_objective({0: math.nan}, best)
    assert value is not None
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not one of last, best, mean_last(k) with k >= 1, ema(alpha) with 0 < alpha"),
        ("lats", "did you mean last?"),
        ("mean_last", "did you mean mean_last(k) with k >= 1?"),
        ("mean_last(0)", "'mean_last(0)' is not one of"),
        ("mean_lst(3)", "did you mean mean_last(k)"),
        ("ema(2)", "did you mean ema(alpha) with 0 < alpha <= 1?"),
        ("ema(x)", "'ema(x)'"),
        ("at_step(-1)", "did you mean at_step(n) with n >= 0?"),
        ("best(3)", "did you mean best?"),
    ],
)
def test_a_wrong_aggregation_is_refused_with_the_nearest_form(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_aggregation(text, "maximize")
    assert caught.value.key == "study.objective.aggregate"
    assert message in str(caught.value)


def test_the_error_names_the_wrong_objective_of_several() -> None:
    objectives = (Objective(metric="a"), Objective(metric="b", aggregate="lats"))
    params: dict[str, Param] = {"x": FloatParam(low=0, high=1)}
    with pytest.raises(SpecError, match=r"study\.objective\[1\]\.aggregate: 'lats'"):
        Judge(StudySpec(name="s", params=params, objectives=objectives, n_trials=1))
