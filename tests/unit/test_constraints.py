"""Constraints: violations of conditions on metrics, and the refusal of all other expressions."""

from __future__ import annotations

import math
from typing import Any

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
from trialbus_services.optimizer.constraints import Constraint
from trialbus_services.optimizer.enqueuing import check_enqueued
from trialbus_services.optimizer.param_constraints import parse_constraints
from trialbus_services.optimizer.sampling.coverage import check_points


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


def make_spec(*constraints: str, **changes: Any) -> StudySpec:
    fields: dict[str, Any] = {
        "name": "s",
        "params": {
            "x": FloatParam(low=0, high=1),
            "kind": CategoricalParam(choices=("a", 2)),
            "size": CategoricalParam(choices={"small": 1, "large": 4}),
            "depth": IntParam(low=1, high=3, when={"kind": "a"}),
        },
        "objectives": (Objective(metric="loss"),),
        "n_trials": 1,
        "constraints": constraints,
    }
    return StudySpec(**fields | changes)


def test_constraints_over_params_alone_are_told_from_those_over_metrics() -> None:
    spec = make_spec("x <= 1", "x + latency <= 5", "size + depth <= 5", "latency <= 1")
    constraints = parse_constraints(spec)
    assert [c.text for c in constraints.of_params] == ["x <= 1", "size + depth <= 5"]
    assert [c.text for c in constraints.of_metrics] == ["x + latency <= 5", "latency <= 1"]


def test_a_constraint_over_params_reads_labelled_values_and_needs_all_its_params() -> None:
    constraints = parse_constraints(make_spec("size + depth <= 5"))
    assert constraints.find_violated({"size": "large", "depth": 1}) is None
    assert constraints.find_violated({"size": "large", "depth": 2}) is constraints.of_params[0]
    assert constraints.find_violated({"size": "large"}) is None  # the trial has no depth


def test_the_rounding_of_floats_violates_no_constraint_over_params() -> None:
    spec = make_spec("x + y <= 0.3", params={n: FloatParam(low=0, high=1) for n in "xy"})
    assert parse_constraints(spec).find_violated({"x": 0.1, "y": 0.2}) is None
    assert parse_constraints(spec).find_violated({"x": 0.1, "y": 0.2001}) is not None


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("kind <= 1", "the param kind has the choice 'a'"),
        ("loss <= 1", "loss is a param and a metric of the study"),
    ],
)
def test_a_name_that_cannot_be_meant_is_refused(constraint: str, words: str) -> None:
    params = {"kind": CategoricalParam(choices=("a", 2)), "loss": FloatParam(low=0, high=1)}
    with pytest.raises(SpecError, match=rf"study\.constraints\[0\].*{words}"):
        parse_constraints(make_spec(constraint, params=params))


def test_enqueued_params_that_violate_a_constraint_are_refused() -> None:
    spec = make_spec("x + size <= 1.5", enqueue=({"x": 0.5}, {"x": 0.75, "size": 1}))
    with pytest.raises(SpecError, match=r"study\.enqueue\[1\].*violates study\.constraints\[0\]"):
        check_enqueued(spec)


@pytest.mark.parametrize("sampler", ["TPESampler", "GridSampler"])
def test_constraints_that_nothing_meets_are_refused(sampler: str) -> None:
    params = {n: FloatParam(low=0, high=1, step=0.25) for n in "xy"}
    spec = make_spec("x + y >= 3", params=params, sampler=Component(type=sampler))
    with pytest.raises(SpecError, match=r"study\.constraints.*'x \+ y >= 3'.*no params"):
        check_points(spec)


@pytest.mark.parametrize("size", [0.0, math.nan, math.inf])
def test_a_result_that_is_not_finite_is_an_error(size: float) -> None:
    constraint = Constraint("c", "1 / size + size <= 3")
    with pytest.raises(ValueError, match=r"'1 / size \+ size <= 3' is (nan|inf)"):
        constraint.compute_violation({"size": size})
