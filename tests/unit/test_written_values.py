"""What is written for another program is read by that program as the same values."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import optuna
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from support.values import INTEGERS, SCALARS, TEXT, VALUES
from trialbus import SpecError, StudySpec
from trialbus.messages import codec
from trialbus.messages.events import TrialAssigned
from trialbus.study.nested_config import Params
from trialbus.study.spec_loading import load_spec
from trialbus.study.values import is_same, restore_non_finite
from trialbus.trainer.assignment import TRIAL_VARIABLE, make_environment, parse_assignment
from trialbus_services.optimizer.assignment import build_assignment
from trialbus_services.optimizer.attributes import SPEC
from trialbus_services.optimizer.distributions import suggest_params
from trialbus_services.optimizer.recorded_spec import read_spec
from trialbus_services.reporter.best_params import format_config, write_params
from trialbus_services.reporter.exports import to_csv
from trialbus_services.reporter.report import write_report
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import summarize_study
from trialbus_services.reporter.table import Table
from trialbus_services.worker.command_line import (
    build_environment,
    collect_values,
    fill_command,
    quote_for_hydra,
)
from trialbus_services.worker.params_check import check_params

PARSER = OverridesParser.create()
NAMES = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}", fullmatch=True)


def make_spec(params: dict[str, Any], **fields: Any) -> StudySpec:
    study = {"name": "s", "objective": {"metric": "m"}, "n_trials": 3, "params": params, **fields}
    return load_spec(study, sampler={"type": "RandomSampler"}, pruner=None)


@settings(max_examples=300)
@given(SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(NAMES, SCALARS, max_size=2))
def test_hydra_and_omegaconf_read_an_override_as_the_value(value: Any) -> None:
    override = PARSER.parse_override(f"a.b={quote_for_hydra(value)}")
    config = OmegaConf.create({"a": {"b": None}})
    OmegaConf.update(config, str(override.key_or_group), override.value())
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert is_same(plain, {"a": {"b": value}})


@settings(max_examples=300)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_pyyaml_and_omegaconf_read_best_params_as_the_values(params: dict[str, Any]) -> None:
    text = format_config(params)
    groups = {
        name
        for name, value in params.items()
        if isinstance(value, str) and any(other.startswith(f"{name}.") for other in params)
    }
    nested = Params({k: v for k, v in params.items() if k not in groups}).nested()
    chosen = [{f"override /{name}": params[name]} for name in params if name in groups]
    expected = {**({"defaults": chosen} if chosen else {}), **nested}
    config: Any = OmegaConf.load(io.StringIO(text))
    assert is_same(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), expected)
    if "${" not in text:
        assert is_same(yaml.safe_load(text) or {}, expected)


@settings(max_examples=50)
@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_the_file_of_params_has_the_values(tmp_path_factory: Any, params: dict[str, Any]) -> None:
    folder: Path = tmp_path_factory.mktemp("run")
    trial = TrialAssigned(study="s", trial=0, params=params)
    assert fill_command(["run"], "file", trial, folder) == ["run", str(folder / "params.json")]
    assert is_same(json.loads((folder / "params.json").read_text()), params)


@pytest.fixture(scope="module")
def storage() -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage("sqlite:///:memory:")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(SCALARS, min_size=1, max_size=3),
    st.dictionaries(TEXT.filter(bool), VALUES, min_size=1, max_size=2),
    VALUES,
)
def test_values_go_the_whole_way_from_yaml_to_the_files_of_the_best_trial(
    storage: optuna.storages.RDBStorage, choices: list[Any], labelled: dict[str, Any], fixed: Any
) -> None:
    written = {
        "params": {
            "plain": {"type": "categorical", "choices": choices},
            "labelled": {"type": "categorical", "choices": labelled},
            "x": {"type": "float", "low": -1, "high": 1},
        },
        "fixed": {"group": {"value": fixed}},
    }
    config: Any = OmegaConf.load(io.StringIO(format_config(written)))
    fields: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    try:
        spec = make_spec(**fields)
    except SpecError as error:
        assert "twice" in error.problem or "same" in error.problem or "label" in error.problem  # noqa: PT017
        return
    spec = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=StudySpec)
    study = optuna.create_study(storage=storage)
    study.set_user_attr(SPEC, msgspec.to_builtins(spec))
    label = next(iter(labelled))
    for _ in range(2):
        study.enqueue_trial(spec.encode_params({"plain": choices[-1], "labelled": labelled[label]}))
        suggest_params(study.ask(), spec.space)
        study.tell(study.trials[-1].number, 0.5)
    loaded = optuna.load_study(study_name=study.study_name, storage=storage)
    best = loaded.best_trial
    assert best.params["labelled"] == label
    recorded = read_spec(loaded.user_attrs)
    assert recorded is not None
    assigned = build_assignment(recorded, best.number, best.params)
    received = codec.decode(assigned.topic, codec.encode(assigned))
    assert isinstance(received, TrialAssigned)
    arrived = parse_assignment(make_environment(received, "ipc://hub")[TRIAL_VARIABLE])
    expected = {"plain": choices[-1], "labelled": labelled[label], "group": {"value": fixed}}
    assert is_same(arrived.params, expected | {"x": best.params["x"]})
    files = write_params(best, summarize_study(Snapshot(loaded)), recorded, Path("/reports/s"))
    assert is_same(json.loads(files["best_params.json"]), arrived.params)
    best_config: Any = OmegaConf.load(io.StringIO(files["best_params.yaml"]))
    plain = OmegaConf.to_container(best_config, resolve=True, throw_on_missing=True)
    assert is_same(plain, arrived.params)


@given(INTEGERS | st.floats() | st.booleans())
def test_a_flag_and_a_variable_have_the_exact_number(value: float) -> None:
    trial = TrialAssigned(study="s", trial=0, params={"x": value})
    (_, flag) = fill_command(["run"], "flags", trial, Path("/run"))
    assert flag.startswith("--x=")
    for text in (
        flag.removeprefix("--x="),
        build_environment(collect_values(trial))["TRIALBUS_PARAM_X"],
    ):
        read = json.loads(text) if isinstance(value, bool) else type(value)(text)
        assert is_same(read, value)


@given(st.lists(SCALARS | st.lists(SCALARS, max_size=2), min_size=1, max_size=4))
def test_a_csv_tells_text_from_numbers_and_nothing_from_empty_text(row: list[Any]) -> None:
    columns = {"trial": [7]} | {f"c{i}": [value] for i, value in enumerate(row)}
    text = to_csv(Table(columns))
    (_, (_, *cells)) = csv.reader(io.StringIO(text, newline=""))
    line = text.split("\r\n", 1)[1]
    for value, cell in zip(row, cells, strict=True):
        match value:
            case str():
                assert cell == value
                assert f'"{value.replace(chr(34), chr(34) * 2)}"' in line
            case list():
                assert is_same(json.loads(cell), value)
            case None:
                assert cell == ""
            case _:
                assert is_same(
                    type(value)(cell) if not isinstance(value, bool) else cell == "True", value
                )


def test_study_json_tells_numbers_that_json_lacks_from_text(tmp_path: Path) -> None:
    study = optuna.create_study()
    choices = [math.inf, "Infinity", -math.inf, math.nan, "NaN", None]
    study.enqueue_trial({"c": math.inf})
    study.enqueue_trial({"c": "Infinity"})
    study.enqueue_trial({"c": math.nan})
    study.optimize(lambda trial: trial.suggest_categorical("c", choices) != "Infinity", n_trials=3)
    write_report(study, tmp_path)
    text = (tmp_path / study.study_name / "study.json").read_text()
    document = json.loads(text, parse_constant=pytest.fail)
    restore_non_finite(document, document.pop("non_finite"))
    params = [trial["params"]["c"] for trial in document["trials"]]
    assert is_same(params, [math.inf, "Infinity", math.nan])


@pytest.mark.parametrize(
    ("params_as", "params", "fields", "key", "problem"),
    [
        ("flags", {"a b": 1}, {}, "trainer.params_as", "flags cannot hold the name 'a b'"),
        ("overrides", {"a b": 1}, {}, "study.params.a b", "a b=0 is no override"),
        (
            *("overrides", {}, {"fixed": {"m": {"1": 2}}}, "study.fixed.m"),
            "m={1:2} is no override that Hydra reads as 'm' and {'1': 2}",
        ),
        (
            *("overrides", {}, {"base_config": {"m": [{"é": 2}]}}, "study.base_config"),
            "m=[{é:2}] is no override",
        ),
        ("environment", {"a.b": 1, "a_b": 1}, {}, "trainer.params_as", "environment cannot hold"),
    ],
    ids=["flag-space", "override-space", "key", "list", "variable"],
)
def test_what_a_program_would_not_get_is_refused_before_the_study_starts(
    params_as: Any, params: dict[str, Any], fields: dict[str, Any], key: str, problem: str
) -> None:
    space = {name: {"type": "int", "low": 0, "high": 1} for name in (*params, "x")}
    with pytest.raises(SpecError) as caught:
        check_params(params_as, make_spec(space, **fields))
    assert caught.value.key == key
    assert caught.value.problem.startswith(problem)


@settings(max_examples=50)
@given(st.lists(TEXT | INTEGERS | st.none(), min_size=1, max_size=3), VALUES)
def test_every_other_study_passes_the_check(choices: list[Any], fixed: Any) -> None:
    labels = {f"l{i}": choice for i, choice in enumerate(choices)}
    params = {"c": {"type": "categorical", "choices": labels}}
    try:
        spec = make_spec(params, fixed={"f.g": fixed})
    except SpecError:
        return
    check_params("file", spec)
    check_params("flags", spec)
    check_params("environment", spec)
