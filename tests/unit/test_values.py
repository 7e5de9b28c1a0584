"""Every value that a study may hold reaches the training as it is, or is refused with its key."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trialbus
from support.values import SCALARS, TEXT, VALUES
from trialbus import CategoricalParam, FloatParam, IntParam, SpecError, StudySpec
from trialbus.messages import codec, events
from trialbus.study.search_space import make_fixed_param
from trialbus.study.spec_loading import load_spec
from trialbus.study.values import (
    check_value,
    is_same,
    restore_non_finite,
    separate_non_finite,
)
from trialbus.testing import TestBus
from trialbus.trainer.assignment import TRIAL_VARIABLE, make_environment, parse_assignment


def load(params: dict[str, Any], **fields: Any) -> StudySpec:
    study = {"name": "s", "objective": {"metric": "m"}, "n_trials": 3, "params": params, **fields}
    return load_spec(study, sampler={"type": "RandomSampler"}, pruner=None)


@given(VALUES)
def test_a_value_crosses_the_bus_and_the_environment_unchanged(value: Any) -> None:
    assigned = events.TrialAssigned(study="s", trial=1, params={"a/b~": value}, config={"c": value})
    received = codec.decode(assigned.topic, codec.encode(assigned))
    assert isinstance(received, events.TrialAssigned)
    text = make_environment(received, "ipc://hub")[TRIAL_VARIABLE]
    arrived = parse_assignment(text)
    assert is_same(arrived.params, {"a/b~": value})
    assert is_same(arrived.config, {"c": value})


@given(VALUES)
def test_an_older_reader_of_the_environment_finds_null_for_what_json_lacks(value: Any) -> None:
    assigned = events.TrialAssigned(study="s", trial=1, params={"a": value})
    text = make_environment(assigned, "ipc://hub")[TRIAL_VARIABLE]
    before = msgspec.json.decode(text, type=events.TrialAssigned)
    assert before.params == json.loads(msgspec.json.encode({"a": value}))


@given(VALUES)
def test_what_json_lacks_stands_beside_the_json_and_is_put_back(value: Any) -> None:
    data, non_finite = separate_non_finite({"a": value}, placeholder=str)
    copy = json.loads(json.dumps(data, allow_nan=False))
    restore_non_finite(copy, non_finite)
    assert is_same(copy, {"a": value})


@pytest.mark.parametrize("pointer", ["/params/b/c", "/params/l/7", "/params/l/x", "nothing"])
def test_a_pointer_to_no_place_of_the_environment_is_an_error_of_the_variable(pointer: str) -> None:
    text = json.dumps(
        {"type": "trial_assigned", "trial": 0, "params": {"l": [1], "b": 2}}
        | {"non_finite": {pointer: "NaN"}}
    )
    with pytest.raises(SpecError, match=r"\$TRIALBUS_TRIAL: .* is not a trial"):
        parse_assignment(text)


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, math.nan, True, 1, "1", [math.nan], None], ids=repr
)
def test_a_training_gets_the_very_value_of_a_test(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    with TestBus() as bus:
        bus.assign(monkeypatch.setenv, params={"clip": value}, config={"limit": value})
        with trialbus.attach(defaults={"other": value}) as trial:
            assert is_same(trial.params["clip"], value)
            assert is_same(trial.params["other"], value)
            assert is_same(trial.config["limit"], value)
            assert is_same(trial.config.nested()["clip"], value)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [(np.float64(0.5), 0.5), (np.int64(3), 3), (np.bool_(1), True), (np.float32("inf"), math.inf)],
    ids=str,
)
def test_a_scalar_of_numpy_arrives_as_pythons_own(scalar: Any, value: Any) -> None:
    assigned = events.TrialAssigned(study="s", trial=1, params={"a": scalar})
    arrived = parse_assignment(make_environment(assigned, "ipc://hub")[TRIAL_VARIABLE])
    assert is_same(arrived.params["a"], value)
    bounds = {"low": 0, "high": 9}
    spec = load({"x": {"type": "float", **bounds}, "n": {"type": "int", **bounds}})
    decoded = spec.decode_params({"x": np.float64(0.5), "n": np.int64(3)})
    assert is_same(decoded, {"x": 0.5, "n": 3})


@given(st.dictionaries(TEXT.filter(bool), VALUES, min_size=1, max_size=4))
def test_a_labelled_choice_is_kept_by_its_label_and_arrives_as_its_value(
    choices: dict[str, Any],
) -> None:
    try:
        param = CategoricalParam(choices=choices)
    except ValueError:
        values = list(choices.values())
        is_twice = any(is_same(a, b) for i, a in enumerate(values) for b in values[:i])
        assert is_twice or any(isinstance(v, str) and v in choices for v in values)
        return
    for label, value in choices.items():
        assert param.encode(label) == label
        assert param.encode(value) == label
        assert is_same(param.decode(label), value)
        assert param.contains(label)
        assert param.contains(value)


@given(VALUES)
def test_a_fixed_value_of_any_kind_arrives_as_it_is(value: Any) -> None:
    param = make_fixed_param(value)
    assert is_same(param.decode(param.encode(value)), value)
    assert param.contains(value)


@given(st.lists(SCALARS, min_size=1, max_size=4))
def test_choices_that_optuna_would_confuse_are_refused_and_all_others_arrive(
    choices: list[Any],
) -> None:
    try:
        spec = load({"c": {"type": "categorical", "choices": choices}})
    except SpecError:
        assert any(a == b or is_same(a, b) for i, a in enumerate(choices) for b in choices[:i])
        return
    for choice in choices:
        stored = spec.encode_params({"c": choice})
        assert is_same(spec.decode_params(stored), {"c": choice})


@pytest.mark.parametrize(
    ("choices", "problem"),
    [
        ([True, 1], "choices has True and 1, which Optuna takes for the same (expected labels"),
        ([0.0, False], "choices has 0.0 and False, which Optuna takes for the same"),
        ([math.nan, math.nan], "choices has nan twice"),
        (["a\0"], "choices[0] 'a\\x00' has a NUL character"),
        (["a", "\ud800"], "choices[1] '\\ud800' has the surrogate '\\ud800'"),
        ([2**64], "choices[0] is 18446744073709551616 (expected an integer of 64 bits, or text)"),
        ({"a": [2**64]}, "choices.a[0] is 18446744073709551616 (expected an integer of 64 bits"),
        ({"a": "b", "b": "c"}, "choices.a is 'b', which is the label of another choice"),
        ({"a": [1], "b": [1]}, "choices has [1] twice"),
        ({"": 1}, "choices has an empty label"),
        ({}, "choices is empty"),
        ({"a": {1: 2}}, "choices.a has the key 1 (expected text)"),
    ],
    ids=str,
)
def test_choices_that_cannot_travel_are_refused_with_key_and_value(
    choices: Any, problem: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load({"c": {"type": "categorical", "choices": choices}})
    assert caught.value.key == "study.params.c"
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "a\ud800"}, "name 'a\\ud800' has the surrogate"),
        ({"name": " "}, "name is empty (expected the name of the study)"),
        ({"name": "n" * 600}, "has 600 characters (expected at most 200"),
        ({"params": {"": {"type": "int", "low": 0, "high": 1}}}, "params has a param whose name"),
        ({"params": {"a\nb": {"type": "int", "low": 0, "high": 1}}}, "has a control character"),
        ({"fixed": {"\udfff": 1}}, "fixed has a param whose name '\\udfff' has the surrogate"),
        ({"fixed": {"p" * 501: 1}}, "has 501 characters (expected at most 500)"),
        ({"fixed": {"a": {"b": 2**70}}}, "fixed.a.b is 1180591620717411303424 (expected an"),
        ({"objective": {"metric": "\ud800"}}, "metric '\\ud800' has the surrogate"),
        ({"seed": 2**32}, "seed 4294967296 is not a seed (expected an integer from 0 to 2**32"),
        ({"seed": -1}, "seed -1 is not a seed"),
        ({"n_trials": 2**31}, "n_trials 2147483648 is above 2**31 - 1"),
        ({"timeout_s": math.nan}, "timeout_s nan is not above zero"),
        ({"target": math.nan}, "target nan is no value"),
        ({"evaluation": {"interval": 2**31}}, "interval 2147483648 is above 2**31 - 1"),
        ({"fixed": {"a": "x" * 60_000}}, "fixed.a has up to 60009 bytes of JSON"),
        ({"enqueue": [{"x": 0.5}] * 70_000}, "enqueue has 840005 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_bus_and_databases_cannot_hold_is_refused_with_key_and_value(
    fields: dict[str, Any], problem: str
) -> None:
    params = {"x": {"type": "float", "low": 0, "high": 10}}
    with pytest.raises(SpecError) as caught:
        load(**{"params": params} | fields)
    assert problem in f"{caught.value.key.rpartition('.')[2]}.{caught.value.problem}"


@pytest.mark.parametrize(
    ("sampler", "problem"),
    [
        ({"type": "TPESampler", "seed": 2**32}, "seed 4294967296 is not a seed"),
        ({"type": "TPESampler", "seed": True}, "seed True is not a seed"),
        ({"type": "TPESampler", "gamma": 2**70}, "gamma is 1180591620717411303424 (expected an"),
    ],
    ids=str,
)
def test_an_argument_of_the_sampler_that_cannot_travel_is_refused(
    sampler: dict[str, Any], problem: str
) -> None:
    params = {"x": {"type": "float", "low": 0, "high": 1}}
    study = {"name": "s", "objective": {"metric": "m"}, "n_trials": 3, "params": params}
    with pytest.raises(SpecError) as caught:
        load_spec(study, sampler=sampler, pruner=None)
    assert caught.value.key == "sampler"
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    ("param", "problem"),
    [
        ({"type": "int", "low": 0, "high": 2**53 + 1}, "high 9007199254740993 is beyond 2**53"),
        ({"type": "int", "low": -(10**400), "high": 0}, "is beyond 2**53"),
        ({"type": "float", "low": -1.7e308, "high": 1.7e308}, "is beyond the range of floats"),
    ],
    ids=["int", "huge-int", "float"],
)
def test_a_range_that_optuna_cannot_sample_exactly_is_refused(
    param: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SpecError, match=problem.replace("*", r"\*")):
        load({"x": param})


def test_enqueued_params_and_conditions_name_a_labelled_choice() -> None:
    spec = load(
        {
            "layers": {"type": "categorical", "choices": {"small": [64, 64], "none": None}},
            "depth": {"type": "int", "low": 1, "high": 3, "when": {"layers": "small"}},
        },
        enqueue=[
            {"layers": "small", "depth": 1},
            {"layers": [64, 64], "depth": 2},
            {"layers": None},
        ],
    )
    stored = [spec.encode_params(params) for params in spec.enqueue]
    assert stored == [
        {"layers": "small", "depth": 1},
        {"layers": "small", "depth": 2},
        {"layers": "none"},
    ]
    assert spec.decode_params(stored[1]) == {"layers": [64, 64], "depth": 2}
    assert spec.find_labels(stored[1]) == {"layers": "small"}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=StudySpec) == spec


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"enqueue": [{"layers": "large"}]}, "enqueue[0].layers 'large' is outside of"),
        ({"enqueue": [{"layers": "none", "depth": 1}]}, "params.depth.when needs layers=small"),
    ],
    ids=["value", "condition"],
)
def test_an_enqueued_value_that_is_no_labelled_choice_is_refused(
    fields: dict[str, Any], problem: str
) -> None:
    params = {
        "layers": {"type": "categorical", "choices": {"small": [64, 64], "none": None}},
        "depth": {"type": "int", "low": 1, "high": 3, "when": {"layers": "small"}},
    }
    with pytest.raises(SpecError) as caught:
        load(params, **fields)
    assert problem in caught.value.problem


def test_a_condition_on_the_value_of_a_labelled_choice_names_the_labels() -> None:
    params = {
        "clip": {"type": "categorical", "choices": {"off": math.inf, "on": 1.0}},
        "x": {"type": "float", "low": 0, "high": 1, "when": {"clip": 1.0}},
    }
    with pytest.raises(SpecError, match=r"clip 1.0 is not a value .* one of 'off', 'on'"):
        load(params)


@settings(max_examples=50)
@given(st.one_of(st.binary(), st.sets(st.integers(), min_size=1), st.complex_numbers()))
def test_a_value_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"key is .* .expected a number, text"):
        check_value("key", value)


def test_a_value_nested_too_deeply_is_refused() -> None:
    value: Any = []
    for _ in range(70):
        value = [value]
    with pytest.raises(ValueError, match="more than 64 levels deep"):
        check_value("key", value)


def test_ranges_decode_to_plain_numbers() -> None:
    assert is_same(FloatParam(low=0, high=1).decode(1), 1.0)
    assert is_same(IntParam(low=0, high=1).decode(1.0), 1)
