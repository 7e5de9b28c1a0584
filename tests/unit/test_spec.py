"""Wrong specifications are refused with the key, the value and the expectation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trialbus import (
    CategoricalParam,
    FloatParam,
    IntParam,
    Objective,
    SpecError,
    StudySpec,
    load_spec,
)
from trialbus.study.search_space import Param

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


def test_a_valid_specification_is_loaded_with_defaults() -> None:
    spec = load()
    assert (spec.name, spec.metrics, spec.directions) == ("digits", ["val/accuracy"], ["maximize"])
    assert spec.sampler.args == {"n_startup_trials": 4}
    assert spec.max_retries == 3


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        ({"n_trial": 3}, "study.n_trial", "no such key"),
        ({"n_trials": "many"}, "study.n_trials", "Expected `int`, got `str` (got 'many')"),
        ({"n_trials": 0}, "study", "n_trials 0 is below 1"),
        ({"name": ""}, "study", "name is empty"),
        (
            {"name": "a" * 201},
            "study",
            f"name {'a' * 40!r}... has 201 characters (expected at most 200; each",
        ),
        ({"budget": -1}, "study", "budget -1 is below 1"),
        ({"timeout_s": 0}, "study", "timeout_s 0 is not above zero"),
        ({"fixed": {"lr": 1}}, "study", "fixed.lr 1 is searched too"),
        ({"fixed": {"depth": 2**64}}, "study", "fixed.depth is 18446744073709551616 (expected an"),
        ({"enqueue": [{"lr": 0.01}, {"rl": 1}]}, "study", "enqueue[1].rl is not a param"),
        ({"enqueue": [{"lr": 7}]}, "study", "enqueue[0].lr 7 is outside of 0.001 to 0.1, log"),
        ({"enqueue": [{"lr": "0.01"}]}, "study", "enqueue[0].lr '0.01' is outside of 0.001 to 0.1"),
        ({"nan": "skip"}, "study.nan", "'skip'"),
        ({"early_stop_patience": 0}, "study", "early_stop_patience 0 is below 1"),
        ({"early_stop_min_delta": -1}, "study", "early_stop_min_delta -1 is below 0"),
        (
            {"target": 1, "objective": [{"metric": "a"}, {"metric": "b"}]},
            "study",
            "target 1 needs one objective",
        ),
        ({"catch_exceptions": "maybe"}, "study.catch_exceptions", "got 'maybe'"),
        ({"evaluation": {"interval": 0}}, "study.evaluation", "interval 0 is below 1"),
        ({"evaluation": {"episode": 2}}, "study.evaluation.episode", "did you mean 'episodes'?"),
        ({"base_config": ""}, "study", "base_config is empty"),
        ({"base_config": [1]}, "study.base_config", "`str | mapping | null`"),
        ({"base_config": {"a": "x" * 70_000}}, "study", "70008 bytes of JSON (expected at most"),
        (
            {"trial_overrides": {"a": {"b": -(2**63) - 1}}},
            "study",
            "trial_overrides.a.b is -9223372036854775809 (expected an integer of 64 bits",
        ),
        ({"prune_by": {"metrics": "a"}}, "study.prune_by.metrics", "did you mean 'metric'?"),
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
            "study.params.lr.setp",
            "no such key; did you mean 'step'?",
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
            {"params": {"n": {"type": "int", "low": 1, "high": 10, "step": 2}}},
            "study.params.n",
            "step 2 does not divide high - low = 9 (expected high 9 or 11, for example)",
        ),
        (
            {"params": {"x": {"type": "float", "low": 0, "high": 1, "step": 0.3}}},
            "study.params.x",
            "step 0.3 does not divide high - low = 1",
        ),
        (
            {"params": {"k": {"type": "categorical", "choices": ["a", "b", "a"]}}},
            "study.params.k",
            "choices has 'a' twice",
        ),
        (
            {"params": {"k": {"type": "categorical", "choices": []}}},
            "study.params.k",
            "choices is empty",
        ),
        ({"objective": {"metric": "a", "direction": "up"}}, "study.objective.direction", "'up'"),
        (
            {"objective": {"direction": "minimize"}},
            "study.objective.metric",
            "None names no metric (expected the name of a metric that the trainer reports)",
        ),
        ({"objective": {"metric": ""}}, "study.objective.metric", "'' names no metric (expected"),
        (
            {"objective": [{"metric": "a"}, {"metric": None}]},
            "study.objective[1].metric",
            "None names no metric (expected",
        ),
        (
            {"objective": [{"metric": "a"}, "b"]},
            "study.objective[1]",
            "'b' is not an objective (expected {metric: <name>, direction: <direction>})",
        ),
        (
            {"objective": []},
            "study.objective",
            "expected a mapping with a metric, or a list of them",
        ),
    ],
)
def test_the_error_for_a_wrong_specification_names_key_and_value(
    changes: dict[str, Any], key: str, text: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(**changes)
    assert caught.value.key == key
    assert text in str(caught.value)


def test_an_objective_without_the_name_of_a_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric is empty"):
        Objective(metric="")


KIND = {"type": "categorical", "choices": ["mlp", "cnn"]}
DEPTH = {"type": "int", "low": 1, "high": 4}


def test_a_param_comes_after_the_params_of_its_condition() -> None:
    params = {
        "width": DEPTH | {"when": {"depth": [1, 2], "n": 3}},
        "depth": DEPTH | {"when": {"kind": "cnn"}},
        "lr": STUDY["params"]["lr"],
        "kind": KIND,
    }
    spec = load(params=params, fixed={"n": 3})
    assert list(spec.space) == ["kind", "depth", "n", "width", "lr"]
    assert msgspec.json.decode(msgspec.json.encode(spec), type=StudySpec) == spec


def test_a_param_without_conditions_is_encoded_without_the_key_when() -> None:
    assert "when" not in msgspec.to_builtins(load())["params"]["lr"]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"depth": {"knd": "cnn"}}, "params.depth.when.knd is not a param; did you mean 'kind'?"),
        (
            {"depth": {"kind": ["cnn", "rnn"]}},
            "params.depth.when.kind 'rnn' is not a value of kind (expected one of 'mlp', 'cnn')",
        ),
        ({"depth": {"kind": []}}, "params.depth.when.kind is empty"),
        ({"depth": {"kind": True}}, "params.depth.when.kind True is not a value of kind"),
        ({"depth": {"lr": 0.5}}, "params.depth.when.lr: lr is a float, which is never exactly 0.5"),
        ({"depth": {"depth": 1}}, "params.depth.when.depth forms a cycle: depth -> depth"),
        (
            {"depth": {"width": 1}, "width": {"height": 1}, "height": {"depth": 1}},
            "params.height.when.depth forms a cycle: depth -> width -> height -> depth",
        ),
    ],
    ids=str,
)
def test_the_error_for_a_wrong_condition_names_its_path(params: dict[str, Any], text: str) -> None:
    conditional = {name: DEPTH | {"when": when} for name, when in params.items()}
    with pytest.raises(SpecError) as caught:
        load(params=STUDY["params"] | {"kind": KIND} | conditional)
    assert text in str(caught.value)


def test_the_error_for_an_enqueued_trial_names_the_unmet_condition() -> None:
    params = {"kind": KIND, "n": DEPTH, "depth": DEPTH | {"when": {"kind": "cnn", "n": [1, 2]}}}
    load(params=params, enqueue=[{"kind": "cnn", "n": 2, "depth": 3}, {"kind": "mlp"}])
    for entry, condition in [
        ({"depth": 3}, "kind=cnn"),
        ({"depth": 3, "kind": "mlp"}, "kind=cnn"),
        ({"depth": 3, "kind": "cnn", "n": 3}, "n=1 or 2"),
    ]:
        with pytest.raises(SpecError) as caught:
            load(params=params, enqueue=[entry])
        assert (
            f"enqueue[0].depth 3 would not be in the trial: params.depth.when needs {condition}"
            in str(caught.value)
        )


def test_overrides_are_merged_into_the_base_and_a_name_stays_a_name() -> None:
    spec = load(base_config={"a": {"b": 1, "c": 2}}, trial_overrides={"a.b": 5, "d": [1]})
    assert (spec.config, spec.config_name) == ({"a": {"b": 5, "c": 2}, "d": [1]}, None)
    spec = load(base_config="small", trial_overrides={"a": 1})
    assert (spec.config, spec.config_name) == ({"a": 1}, "small")


def test_a_pruner_needs_one_metric_of_several_objectives() -> None:
    two = [{"metric": "a"}, {"metric": "b", "direction": "minimize"}]
    for prune_by, pattern in [
        (None, r"prune_by is missing.*one of a, b"),
        ({"metric": "c"}, r"prune_by.direction is missing: 'c' is not an objective"),
    ]:
        with pytest.raises(SpecError, match=pattern):
            load_spec(
                STUDY | {"objective": two, "prune_by": prune_by},
                sampler={"type": "TPESampler"},
                pruner={"type": "MedianPruner"},
            )
    spec = load_spec(
        STUDY | {"objective": two, "prune_by": {"metric": "b"}},
        sampler={"type": "TPESampler"},
        pruner={"type": "MedianPruner"},
    )
    assert spec.pruned_by
    assert (spec.pruned_by.metric, spec.pruned_by.direction) == ("b", "minimize")


@pytest.mark.parametrize(
    ("param", "inside", "outside"),
    [
        (FloatParam(low=0, high=1), [0, 0.3, 1.0], [-0.1, True, "0.5", None]),
        (FloatParam(low=0, high=1, step=0.1), [0.3, 1.0], [0.35]),
        (IntParam(low=1, high=9, step=2), [1, 9], [2, 1.0, True, 11]),
        (FloatParam(low=0.1, high=0.7, step=0.2), [0.1, 0.5], [0.2]),
        (CategoricalParam(choices=(1, "a", None)), [1, "a", None], [2, True, "None"]),
        (CategoricalParam(choices=(False, 1.5)), [False, 1.5], [0, True]),
        (CategoricalParam(choices=(1,)), [1], [True, "1"]),
    ],
)
def test_a_param_contains_exactly_the_values_of_its_range(
    param: Param, inside: list[Any], outside: list[Any]
) -> None:
    assert [param.contains(value) for value in inside] == [True] * len(inside)
    assert [param.contains(value) for value in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    "name",
    [
        "hydra.callbacks.x._target_",
        "+hydra.callbacks.x._target_",
        "++ hydra.run.dir",
        " hydra.run.dir",
        "hydra/launcher",
        "hydra",
        "optimizer@hydra.callbacks.x",
        "~model",
        "+~model",
        "--config-dir",
        "-cd",
        "lr=1",
    ],
)
@pytest.mark.parametrize("place", ["params", "fixed", "base_config", "trial_overrides"])
def test_a_name_that_would_be_an_option_or_a_setting_of_hydra_is_refused(
    place: str, name: str
) -> None:
    value: Any = {"type": "float", "low": 0, "high": 1} if place == "params" else 1
    with pytest.raises(
        SpecError, match=f"{place} has a (param|value) whose name .*(expected|Hydra)"
    ):
        load(**{place: {name: value}})


@pytest.mark.parametrize("name", ["hydration", "+model.hydra", "model/hydra_size", "a-b", "x.~y"])
def test_a_name_that_only_resembles_a_setting_of_hydra_is_kept(name: str) -> None:
    assert name in load(params={name: {"type": "float", "low": 0, "high": 1}}).params
