"""Params by dotted and by nested names."""

from __future__ import annotations

from typing import Any

import pytest

from trialbus.study.nested_config import Params, flatten_config, merge_configs

PARAMS = Params({"lr": 0.1, "model.width": 64, "model.head.depth": 2})


def test_dotted_and_nested_names_lead_to_the_same_value() -> None:
    assert PARAMS["model.width"] == PARAMS["model"]["width"] == 64
    assert PARAMS["model.head.depth"] == PARAMS["model"]["head"]["depth"] == 2


def test_it_is_a_mapping_by_the_names_of_the_study() -> None:
    assert list(PARAMS) == ["lr", "model.width", "model.head.depth"]
    assert dict(PARAMS) == {"lr": 0.1, "model.width": 64, "model.head.depth": 2}
    assert ("model" in PARAMS, "model.head" in PARAMS, "mod" in PARAMS) == (True, True, False)
    assert PARAMS.get("momentum", 0.9) == 0.9


def test_a_name_it_does_not_have_is_answered_with_those_it_has() -> None:
    with pytest.raises(KeyError, match=r"rate \(the trial has lr, model.width, model.head.depth\)"):
        PARAMS["rate"]


def test_nested_gives_a_configuration() -> None:
    assert PARAMS.nested() == {"lr": 0.1, "model": {"width": 64, "head": {"depth": 2}}}


@pytest.mark.parametrize("values", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}])
def test_a_value_that_others_lie_below_is_found_and_cannot_be_nested(
    values: dict[str, int],
) -> None:
    params = Params(values)
    assert (params["a"], params["a.b"]) == (1, 2)
    with pytest.raises(ValueError, match=r"param 'a.b' lies below 'a', which has a value"):
        params.nested()


def test_leaves_are_the_values_of_a_configuration_by_dotted_name() -> None:
    config: dict[str, Any] = {"a": {"b": 1, "c": [{"d": 2}], "e": {}}, "f.g": None}
    assert flatten_config(config) == {"a.b": 1, "a.c": [{"d": 2}], "a.e": {}, "f.g": None}
    assert flatten_config(Params(flatten_config(config)).nested()) == flatten_config(config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"a": {"b": float("nan")}}, r"a.b is nan \(expected a finite number, text"),
        ({"a": [1, [float("inf")]]}, r"a\[1\]\[0\] is inf"),
        ({"a": [{1: 2}]}, r"a\[0\] has the key 1 \(expected text\)"),
        ({"a": {1: 2}}, r"a.1 has the key 1 \(expected a name\)"),
        ({"a.": 1}, r"a. has the key 'a.'"),
        ({"a": 2**64}, "a is 18446744073709551616"),
        ({"a": {"b": 1}, "a.b": 2}, "a.b is there twice"),
        ({"a": 1, "a.b": 2}, "a.b lies below a, which has a value"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_travel_is_refused(config: dict[Any, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        flatten_config(config)


def test_a_value_takes_the_place_of_all_below_it_and_of_one_it_lies_below() -> None:
    below = {"a.b": 1, "a.c": 2, "ab": 3, "d": 4}
    assert merge_configs(below, {"a.b": 9}) == {"a.b": 9, "a.c": 2, "ab": 3, "d": 4}
    assert merge_configs(below, {"a": 9}) == {"a": 9, "ab": 3, "d": 4}
    assert merge_configs(below, {"d.e.f": 9}) == {"a.b": 1, "a.c": 2, "ab": 3, "d.e.f": 9}
