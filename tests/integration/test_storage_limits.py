"""What a database cannot hold is refused before a study starts, with key and value."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from support.databases import Databases
from trialbus import SpecError, StudySpec
from trialbus.study.spec_loading import load_spec
from trialbus_services.optimizer.curve_attributes import read_curve, write_curve
from trialbus_services.optimizer.storage_limits import check_limits, check_storage_limits

LR = {"lr": {"type": "float", "low": 0, "high": 1}}


def make_spec(name: str = "s", params: dict[str, Any] | None = None, **fields: Any) -> StudySpec:
    study = {"name": name, "objective": {"metric": "m"}, "n_trials": 3, "params": params or LR}
    return load_spec(study | fields, sampler={"type": "RandomSampler"}, pruner=None)


def run_sql(url: str, statement: str) -> None:
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def find_error(url: str, spec: StudySpec, origin: dict[str, Any] | None = None) -> SpecError | None:
    try:
        check_limits(url, spec, origin or {})
    except SpecError as error:
        return error
    return None


def set_charset(url: str, charset: str) -> None:
    name = sqlalchemy.make_url(url).database
    run_sql(url, f"ALTER DATABASE {name} CHARACTER SET {charset}")


@pytest.mark.parametrize("is_created", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["mysql"])
def test_mysql_lacks_characters_and_long_attributes(databases: Databases, is_created: bool) -> None:
    url = databases.new()
    set_charset(url, "latin1")
    if is_created:
        databases.open(url)
    assert find_error(url, make_spec("größe")) is None
    for spec, key in [
        (make_spec("日本"), "study.name"),
        (make_spec(params={"学習率": LR["lr"]}), "study.params.学習率"),
        (make_spec(fixed={"🙂": 1}), "study.fixed.🙂"),
    ]:
        error = find_error(url, spec)
        assert error is not None
        assert error.key == key
        assert "whose encoding is latin1" in error.problem

    long = ["x" * 10_000 + str(i) for i in range(7)]
    choices = {"c": {"type": "categorical", "choices": long}}
    error = find_error(url, make_spec(params=choices))
    assert error is not None
    assert error.key == "study.params.c"
    assert "bytes of JSON in the database, whose columns hold 65535" in error.problem
    labels = {
        "c": {"type": "categorical", "choices": {str(i): text for i, text in enumerate(long)}}
    }
    error = find_error(url, make_spec(params=labels))
    assert error is not None
    assert error.key == "study.params"
    error = find_error(url, make_spec(), {"config": "x" * 70_000})
    assert error is not None
    assert error.key == "study"
    if is_created:
        run_sql(url, "ALTER TABLE study_user_attributes MODIFY value_json LONGTEXT")
        assert find_error(url, make_spec(params=labels)) is None


@pytest.mark.parametrize("kind", ["mysql"])
def test_mysql_takes_names_that_differ_in_case_for_the_same(databases: Databases) -> None:
    url = databases.new()
    storage = databases.open(url)
    error = find_error(url, make_spec(params={"lr": LR["lr"], "LR": LR["lr"]}))
    assert error is not None
    assert error.key == "study.params.LR"
    assert "'LR' is the same name as 'lr' to the database" in error.problem
    optuna.create_study(study_name="Digits", storage=storage)
    for check in (check_limits, check_storage_limits):
        target: Any = url if check is check_limits else storage
        check(target, make_spec("Digits"), {})
        with pytest.raises(SpecError, match="'digits' is the same name as 'Digits'"):
            check(target, make_spec("digits"), {})


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_postgresql_database_in_latin1_lacks_characters(databases: Databases) -> None:
    url = sqlalchemy.make_url(databases.new())
    run_sql(
        url.render_as_string(hide_password=False),
        f"CREATE DATABASE {url.database}_l ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' "
        "LC_CTYPE 'C'",
    )
    latin = url.set(database=f"{url.database}_l").render_as_string(hide_password=False)
    assert find_error(latin, make_spec("größe")) is None
    error = find_error(latin, make_spec("日本"))
    assert error is not None
    assert error.key == "study.name"
    assert "whose encoding is LATIN1" in error.problem
    labels = {"c": {"type": "categorical", "choices": {"a": "x" * 40_000, "b": "日本"}}}
    assert find_error(latin, make_spec(params=labels)) is None
    assert find_error(url.render_as_string(hide_password=False), make_spec("日本")) is None


@pytest.mark.parametrize("kind", ["mysql", "sqlite", "journal", "memory"])
def test_a_long_curve_of_another_metric_comes_back_from_every_storage(databases: Databases) -> None:
    curve = {step: 1 / 3 + step for step in range(4000)}
    storage = databases.open(databases.new())
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    for key, value in write_curve(curve).items():
        assert len(json.dumps(value)) < 65_536
        trial.set_user_attr(key, value)
    study.tell(trial, state=TrialState.PRUNED)
    assert read_curve(study.trials[0].user_attrs) == curve


def test_a_database_that_cannot_be_reached_is_left_to_the_optimizer() -> None:
    check_limits("postgresql+psycopg://nobody@/x?host=/nowhere", make_spec("日本"), {})
