"""Sweeps of Hydra as search spaces: ranges, intervals, choices, fixed overrides, and mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from trialbus.errors import SpecError
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam, Param
from trialbus_services.sweeper.search_space import (
    format_job,
    read_search_space,
    read_written_space,
)


@pytest.mark.parametrize(
    ("sweep", "param"),
    [
        ("choice(1,2)", CategoricalParam(choices=(1, 2))),
        ("1,2", CategoricalParam(choices=(1, 2))),
        ("choice(true,false)", CategoricalParam(choices=(True, False))),
        ("choice(adam,'a b')", CategoricalParam(choices=("adam", "a b"))),
        ("[1,2],null", CategoricalParam(choices=("[1,2]", "null"))),
        ("range(1,3)", IntParam(low=1, high=3)),
        ("range(1,8,3)", IntParam(low=1, high=7, step=3)),
        ("range(0.5,5.5,step=1)", FloatParam(low=0.5, high=5.5, step=1)),
        ("range(0,1,step=0.3)", FloatParam(low=0, high=0.9, step=0.3)),
        ("interval(1,5)", FloatParam(low=1, high=5)),
        ("int(interval(1,5))", IntParam(low=1, high=5)),
        ("tag(log,interval(1,5))", FloatParam(low=1, high=5, log=True)),
        ("tag(log,int(interval(1,5)))", IntParam(low=1, high=5, log=True)),
    ],
)
def test_a_sweep_of_hydra_is_a_param(sweep: str, param: Param) -> None:
    assert read_search_space({"model.x": sweep}, [], None).params == {"model.x": param}
    assert read_search_space({}, [f"model.x={sweep}"], None).params == {"model.x": param}


def test_a_shuffled_range_is_a_choice_without_the_stop() -> None:
    param = read_search_space({}, ["x=shuffle(range(1,3))"], None).params["x"]
    assert isinstance(param, CategoricalParam)
    assert isinstance(param.choices, tuple)
    assert set(param.choices) == {1, 2}


def test_what_stands_later_replaces_what_stood_before() -> None:
    space = read_search_space(
        {"x": "interval(0,1)", "y": "choice(1,2)", "z": 3}, ["x=0.5", "+w=1,2", "z=4,5"], None
    )
    assert list(space.params) == ["y", "+w", "z"]
    assert space.fixed == {"x": "x=0.5"}


def test_a_job_has_the_text_of_the_sweep() -> None:
    overrides = ["~model.dropout", "+name='a b'", "opt=choice(adam,'s g d')", "x=interval(0,1)"]
    space = read_search_space({}, overrides, None)
    job = format_job(space, {"opt": "s g d", "x": 1e-7, "flag": True})
    assert job == ["~model.dropout", "+name='a b'", "opt=s\\ g\\ d", "x=1e-07", "flag=true"]
    parsed = OverridesParser.create().parse_overrides(job)
    assert [override.value() for override in parsed[2:]] == ["s g d", 1e-7, True]


def test_the_older_form_of_a_search_space_is_read() -> None:
    space = read_written_space(
        {
            "c": {"type": "categorical", "choices": [1, 2, 3]},
            "i": {"type": "int", "low": 0, "high": 11, "step": 2, "choices": None},
            "f": {"type": "float", "low": 1, "high": 100, "log": True},
        }
    )
    assert space == {
        "c": CategoricalParam(choices=(1, 2, 3)),
        "i": IntParam(low=0, high=10, step=2),
        "f": FloatParam(low=1, high=100, log=True),
    }


@pytest.mark.parametrize(
    ("params", "arguments", "says"),
    [
        ({"x": "interval(2,1)"}, [], r"hydra.sweeper.params.x: .*above high"),
        ({}, ["x=range(3,1)"], r"x=range\(3,1\): .*expected an ascending range"),
        ({"x": "tag(log,interval(0,1))"}, [], "expected low > 0"),
        ({"x": "choice(1,1)"}, [], "has 1 twice"),
        ({"x": "interval(1"}, [], "hydra.sweeper.params.x: .*no override of Hydra"),
    ],
    ids=["order", "range", "log", "twice", "grammar"],
)
def test_a_wrong_sweep_is_refused_where_it_stands(
    params: dict[str, Any], arguments: list[str], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        read_search_space(params, arguments, None)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ([1], r"hydra.sweeper.search_space: \[1\] is not a mapping"),
        ({"x": {"type": "flaot"}}, "did you mean 'float'"),
        ({"x": 3}, "hydra.sweeper.search_space.x"),
    ],
    ids=["list", "type", "number"],
)
def test_a_wrong_entry_of_the_older_form_is_refused(written: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_written_space(written)
