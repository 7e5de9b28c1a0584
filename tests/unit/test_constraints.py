"""Constraints: violations of conditions on metrics, and the refusal of all other expressions."""

from __future__ import annotations

import math

import pytest

from trialbus import SpecError
from trialbus_services.optimizer.constraints import Constraint


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        pytest.param("size <= 10", -2, id="at-most"),
        pytest.param("size >= 10", 2, id="at-least"),
        pytest.param("{val/latency} <= 0.25", 0.25, id="braces"),
        pytest.param("{ val/latency } + {a b} * 2 - -1 <= size / 4", 5.5, id="arithmetic"),
        pytest.param("1e-1 >= {val/latency}", 0.4, id="number-first"),
    ],
)
def test_the_violation_is_the_difference_of_the_sides(text: str, violation: float) -> None:
    metrics = {"size": 8, "val/latency": 0.5, "a b": 3.0}
    assert Constraint("c", text).compute_violation(metrics) == pytest.approx(violation)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size",
        "size < 10",
        "size == 10",
        "1 <= 2",
        "0 <= size <= 10",
        "__import__('os').system('true') <= 1",
        "size.real <= 1",
        "size ** 9 <= 1",
        "[size] <= 1",
        "'a' <= size",
        "True <= size",
        "{val/latency <= 3",
        "size <= " + "(" * 300,
        "size <= 0\nsize <= 1",
    ],
)
def test_an_expression_other_than_arithmetic_on_metrics_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"study\.constraints\[3\].*expected"):
        Constraint("study.constraints[3]", text)


def test_a_condition_that_is_too_long_for_a_key_of_optuna_is_refused() -> None:
    with pytest.raises(SpecError, match="at most 400"):
        Constraint("c", "size" + " + size" * 100 + " <= 0")


@pytest.mark.parametrize("size", [0.0, math.nan, math.inf])
def test_a_result_that_is_not_finite_is_an_error(size: float) -> None:
    constraint = Constraint("c", "1 / size + size <= 3")
    with pytest.raises(ValueError, match=r"'1 / size \+ size <= 3' is (nan|inf)"):
        constraint.compute_violation({"size": size})
