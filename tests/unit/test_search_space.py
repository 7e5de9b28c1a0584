"""Search spaces in Hydra's grammar of sweeps and as mappings give the same params."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trialbus import CategoricalParam, FloatParam, IntParam, SpecError
from trialbus.study.search_space import Param
from trialbus_services.config.search_space import expand_list, expand_params


@pytest.mark.parametrize(
    ("written", "param"),
    [
        ("interval(0, 1)", FloatParam(low=0, high=1)),
        ("interval(1, 8)", FloatParam(low=1, high=8)),
        ("int(interval(1, 8))", IntParam(low=1, high=8)),
        ("tag(log, interval(1e-5, 1e-1))", FloatParam(low=1e-5, high=1e-1, log=True)),
        ("tag(log, int(interval(1, 100)))", IntParam(low=1, high=100, log=True)),
        ("range(1, 10, 3)", IntParam(low=1, high=7, step=3)),
        ("range(5)", IntParam(low=0, high=4)),
        ("range(4, 0, -2)", IntParam(low=2, high=4, step=2)),
        ("range(0, 1, 0.25)", FloatParam(low=0, high=0.75, step=0.25)),
        ("range(0, 1.1, 0.1)", FloatParam(low=0, high=1, step=0.1)),
        ("range(0, 1000000000000)", IntParam(low=0, high=999999999999)),
        ("float(range(1, 5))", FloatParam(low=1, high=4, step=1)),
        ("tag(log, range(1, 9))", IntParam(low=1, high=8, log=True)),
        ("choice(adam, sgd)", CategoricalParam(choices=("adam", "sgd"))),
        ("adam, 'a b', 3, 0.5, true", CategoricalParam(choices=("adam", "a b", 3, 0.5, True))),
        ("choice('a, b', \"c\", 'true')", CategoricalParam(choices=("a, b", "c", "true"))),
        ("  choice(10, 20)\n", CategoricalParam(choices=(10, 20))),
        ({"type": "float_log", "low": 1e-3, "high": 1}, FloatParam(low=1e-3, high=1, log=True)),
        ({"type": "int_log", "low": 1, "high": 64}, IntParam(low=1, high=64, log=True)),
        ({"type": "int", "low": 1, "high": 9, "step": 2}, IntParam(low=1, high=9, step=2)),
    ],
    ids=str,
)
def test_every_form_of_a_param_is_expanded_to_the_same_param(written: Any, param: Param) -> None:
    expanded = expand_params({"optimizer.lr": written})["optimizer.lr"]
    assert msgspec.convert(expanded, Param) == param


@pytest.mark.parametrize(
    ("written", "pattern"),
    [
        ("interval(1", "study.params.lr: 'interval.1' cannot be read"),
        ("choice(1, null)", "write null as one of choices: in a mapping"),
        ("0.1", "'0.1' is one value .expected interval.* study.fixed"),
        ("shuffle(range(1, 5))", "the sampler chooses the order"),
        ("shuffle(1, 2)", "the sampler chooses the order"),
        ("tag(fast, interval(0, 1))", "is tagged fast .expected log alone"),
        ("range(1, 1)", "has no values .the stop is not among them"),
        ("range(1, 5, 0)", "never ends .expected finite numbers, and a step but 0"),
        ("range(1, inf)", "never ends"),
        ("tag(log, choice(1, 2))", "choices have no logarithm"),
        ("choice()", "empty choice is not legal"),
        ("", "'' is one value"),
        ("glob(*)", "is not a search space|is one value"),
    ],
    ids=str,
)
def test_text_that_is_no_search_space_is_refused_with_a_reason(written: str, pattern: str) -> None:
    with pytest.raises(SpecError, match=pattern):
        expand_params({"lr": written})


def test_a_list_of_named_parameters_gives_the_same_search_space() -> None:
    parameters: list[dict[str, Any]] = [
        {"name": "optimizer.lr", "type": "float_log", "low": 1e-5, "high": 0.1, "choices": None},
        {"name": "layers", "type": "int", "low": 1, "high": 5, "step": 2},
        {"name": "act", "type": "categorical", "choices": ["relu", None], "low": None},
        {"name": "heads", "type": "int_log", "low": 1, "high": 8, "when": {"act": "relu"}},
    ]
    assert {name: msgspec.convert(p, Param) for name, p in expand_list(parameters).items()} == {
        "optimizer.lr": FloatParam(low=1e-5, high=0.1, log=True),
        "layers": IntParam(low=1, high=5, step=2),
        "act": CategoricalParam(choices=("relu", None)),
        "heads": IntParam(low=1, high=8, log=True, when={"act": "relu"}),
    }


@pytest.mark.parametrize(
    ("parameters", "pattern"),
    [
        ({"lr": 1}, r"studies\[0\].parameters: \{'lr': 1\} is not a list"),
        ([{"type": "int"}], r"studies\[0\].parameters\[0\].name: missing in \{'type': 'int'\}"),
        (["lr"], r"parameters\[0\].name: missing in 'lr'"),
        ([{"name": "a"}, {"name": "a"}], r"parameters\[1\].name: 'a' is given twice"),
    ],
    ids=str,
)
def test_the_error_for_a_wrong_list_of_parameters_names_the_entry(
    parameters: Any, pattern: str
) -> None:
    with pytest.raises(SpecError, match=pattern):
        expand_list(parameters, "studies[0].parameters")
