"""Wrong specifications are refused with the key, the value and what was expected."""

from __future__ import annotations

from typing import Any

import pytest

from trialbus import SpecError, load_spec

STUDY: dict[str, Any] = {
    "name": "digits",
    "n_trials": 3,
    "objective": {"metric": "val/accuracy"},
    "params": {"lr": {"type": "float", "low": 0.001, "high": 0.1, "log": True}},
}


def load(**changes: Any) -> Any:
    return load_spec(
        STUDY | changes, sampler={"type": "TPESampler", "n_startup_trials": 4}, pruner=None
    )


def test_a_right_one_is_loaded_with_its_defaults() -> None:
    spec = load()
    assert (spec.name, spec.metrics, spec.directions) == ("digits", ["val/accuracy"], ["maximize"])
    assert spec.sampler.args == {"n_startup_trials": 4}
    assert spec.max_retries == 3


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"n_trial": 3}, "study.n_trial", "no such key"),
        ({"n_trials": "many"}, "study.n_trials", "Expected `int`, got `str` (got 'many')"),
        ({"n_trials": 0}, "study", "n_trials 0 is below 1"),
        ({"name": ""}, "study", "name is empty"),
        ({"budget": -1}, "study", "budget -1 is below 1"),
        ({"timeout_s": 0}, "study", "timeout_s 0 is not above zero"),
        ({"params": {}}, "study.params", "expected a mapping of at least one param"),
        (
            {"params": {"lr": {"type": "float", "low": 1, "high": 0.1}}},
            "study.params.lr",
            "low 1 is above high 0.1",
        ),
        (
            {"params": {"lr": {"type": "float", "low": 0, "high": 1, "log": True}}},
            "study.params.lr",
            "low 0 is not above zero (expected low > 0 with log=true)",
        ),
        (
            {"params": {"lr": {"type": "flaot", "low": 0, "high": 1}}},
            "study.params.lr.type",
            "'flaot'",
        ),
        (
            {"params": {"lr": {"type": "float", "low": 0}}},
            "study.params.lr",
            "missing required field `high`",
        ),
        (
            {"params": {"lr": {"type": "float", "low": 0, "high": 1, "setp": 1}}},
            "study.params.lr",
            "`setp`",
        ),
        (
            {"params": {"lr": {"type": "float", "low": "a", "high": 1}}},
            "study.params.lr.low",
            "got 'a'",
        ),
        (
            {"params": {"n": {"type": "int", "low": 1, "high": 9, "step": 0}}},
            "study.params.n",
            "step 0",
        ),
        (
            {"params": {"k": {"type": "categorical", "choices": []}}},
            "study.params.k",
            "choices is empty",
        ),
        ({"objective": {"metric": "a", "direction": "up"}}, "study.objective.direction", "'up'"),
        ({"objective": {"metric": ""}}, "study.objective", "metric is empty"),
        ({"objective": []}, "study.objective", "expected a mapping or a list of mappings"),
    ],
)
def test_a_wrong_one_names_its_key_and_value(changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(**changes)
    assert caught.value.key == key
    assert words in str(caught.value)
