"""Params and configurations by dotted and by nested names."""

from __future__ import annotations

from typing import Any

import pytest

from trialbus.study.nested_config import Params, flatten_config, merge_configs

PARAMS = Params({"lr": 0.1, "model.width": 64, "model.head.depth": 2})


def test_dotted_and_nested_names_lead_to_the_same_value() -> None:
    assert PARAMS["model.width"] == PARAMS["model"]["width"] == 64
    assert PARAMS["model.head.depth"] == PARAMS["model"]["head"]["depth"] == 2


def test_params_are_a_mapping_by_the_names_of_the_study() -> None:
    assert list(PARAMS) == ["lr", "model.width", "model.head.depth"]
    assert dict(PARAMS) == {"lr": 0.1, "model.width": 64, "model.head.depth": 2}
    assert ("model" in PARAMS, "model.head" in PARAMS, "mod" in PARAMS) == (True, True, False)
    assert PARAMS.get("momentum", 0.9) == 0.9


def test_the_error_for_an_unknown_name_lists_the_params_of_the_trial() -> None:
    with pytest.raises(KeyError, match=r"rate \(the trial has lr, model.width, model.head.depth\)"):
        PARAMS["rate"]


def test_nested_returns_a_nested_configuration() -> None:
    assert PARAMS.nested() == {"lr": 0.1, "model": {"width": 64, "head": {"depth": 2}}}


@pytest.mark.parametrize("values", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}])
def test_a_value_with_other_names_below_it_is_found_and_keeps_its_full_name(
    values: dict[str, int],
) -> None:
    params = Params(values)
    assert (params["a"], params["a.b"]) == (1, 2)
    assert params.nested() == values


def test_a_flat_configuration_has_the_values_by_dotted_name() -> None:
    config: dict[str, Any] = {"a": {"b": 1, "c": [{"d": 2}], "e": {}}, "f.g": None}
    assert flatten_config(config) == {"a.b": 1, "a.c": [{"d": 2}], "a.e": {}, "f.g": None}
    assert flatten_config(Params(flatten_config(config)).nested()) == flatten_config(config)


@pytest.mark.parametrize(
    ("config", "pattern"),
    [
        ({"a": {"b": {1}}}, r"a.b is \{1\} \(expected a number, text"),
        ({"a": [1, ["\ud800"]]}, r"a\[1\]\[0\] '.ud800' has the surrogate '.ud800'"),
        ({"a": "x\0"}, "a 'x.x00' has a NUL character"),
        ({"a": [{1: 2}]}, r"a\[0\] has the key 1 \(expected text\)"),
        ({"a": {1: 2}}, r"a.1 has the key 1 \(expected a name\)"),
        ({"a.": 1}, r"a. has the key 'a.'"),
        ({"a": 2**64}, "a is 18446744073709551616"),
        ({"a": {"b": 1}, "a.b": 2}, "a.b is given twice"),
        ({"a": 1, "a.b": 2}, "a.b lies below a, which has a value"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_travel_is_refused(
    config: dict[Any, Any], pattern: str
) -> None:
    with pytest.raises(ValueError, match=pattern):
        flatten_config(config)


def test_an_override_replaces_all_values_below_its_name_and_a_value_above_it() -> None:
    base = {"a.b": 1, "a.c": 2, "ab": 3, "d": 4}
    assert merge_configs(base, {"a.b": 9}) == {"a.b": 9, "a.c": 2, "ab": 3, "d": 4}
    assert merge_configs(base, {"a": 9}) == {"a": 9, "ab": 3, "d": 4}
    assert merge_configs(base, {"d.e.f": 9}) == {"a.b": 1, "a.c": 2, "ab": 3, "d.e.f": 9}
