"""What a trainer may report."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trialbus.trainer.metrics import flatten_metrics

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")


def test_numbers_of_every_kind_become_floats() -> None:
    found = flatten_metrics(
        {"a": 1, "b": True, "c": np.float32(0.5), "d": torch.tensor(2.0), "e": np.array(3)}
    )
    assert found == {"a": 1.0, "b": 1.0, "c": 0.5, "d": 2.0, "e": 3.0}
    assert {type(value) for value in found.values()} == {float}


def test_nested_metrics_are_joined() -> None:
    assert flatten_metrics({"val": {"accuracy": 0.9, "per": {"class": 1}}}) == {
        "val/accuracy": 0.9,
        "val/per/class": 1.0,
    }


def test_nan_and_infinities_travel() -> None:
    found = flatten_metrics({"a": math.nan, "b": -math.inf})
    assert math.isnan(found["a"])
    assert found["b"] == -math.inf


@pytest.mark.parametrize(
    "value",
    ["0.9", None, [1.0], np.zeros(3), np.zeros((1,)), torch.zeros(2), b"1", object()],
    ids=["text", "None", "list", "vector", "one in a row", "tensor", "bytes", "object"],
)
def test_what_is_not_one_number_is_refused_with_its_key(value: Any) -> None:
    with pytest.raises(TypeError, match=r"metric 'val/accuracy' is .*, expected one number"):
        flatten_metrics({"val": {"accuracy": value}})
