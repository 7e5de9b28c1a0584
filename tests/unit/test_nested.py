"""Params by dotted and by nested names."""

from __future__ import annotations

import pytest

from trialbus.nested import Params

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
