"""A study with all kinds of params and states of Optuna, driven by a seed, and comparisons."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

Direction = Literal["minimize", "maximize"]

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "float": FloatDistribution(-1, 1),
    "float_log": FloatDistribution(1e-5, 1, log=True),
    "float_step": FloatDistribution(0, 1, step=0.1),
    "int": IntDistribution(-5, 5),
    "int_log": IntDistribution(1, 1000, log=True),
    "int_step": IntDistribution(0, 100, step=5),
    "choice": CategoricalDistribution([None, True, 3, 2.5, "ä"]),
}
_VALUES = [math.nan, math.inf, -math.inf, 0.1, -3.0, 1e300, 5e-324]


def open_study(
    storage: BaseStorage, name: str, directions: list[Direction], seed: int
) -> optuna.Study:
    """Create or continue a study with a random sampler."""
    return optuna.create_study(
        study_name=name,
        storage=storage,
        directions=directions,
        sampler=optuna.samplers.RandomSampler(seed=seed),
        load_if_exists=True,
    )


def play_actions(
    study: optuna.Study,
    seed: int,
    pause: Callable[[], object] = lambda: None,
    n_actions: int = 30,
) -> None:
    """Apply random actions to a study; `pause`, called in between, must not change the study."""
    chance = random.Random(seed)
    single = len(study.directions) == 1
    study.set_user_attr("seed", {"is": seed, "nan": math.nan})
    study.enqueue_trial({"float": 0.5, "choice": None}, user_attrs={"given": True})
    study.enqueue_trial({"int": 3})
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            values=[math.inf, *[-1.5] * (len(study.directions) - 1)],
            params={
                name: d.to_external_repr(d.to_internal_repr(_choose_value(d))) for name, d in _ITEMS
            },
            distributions=dict(_ITEMS),
            intermediate_values={1: 0.5, 7: math.nan} if single else {},
            user_attrs={"text": 'ü"\\'},
        )
    )
    running: list[optuna.Trial] = []
    for _ in range(n_actions):
        action = chance.choice(["ask", "report", "report", "report", "attribute", "tell", "pause"])
        trial = chance.choice(running) if running else None
        match action:
            case "ask":
                running.append(study.ask(DISTRIBUTIONS if chance.random() < 0.8 else None))
                if chance.random() < 0.3:
                    running[-1].suggest_float("late", 0, 1)
            case "report" if trial and single:
                first = trial.user_attrs.get("next", 0)
                for step in range(first, first + 5, chance.choice([1, 2])):
                    trial.report(chance.choice(_VALUES), step)
                trial.set_user_attr("next", first + 5)
            case "attribute" if trial:
                trial.set_user_attr(chance.choice("abc"), [chance.random(), {"x": None}])
                trial.set_constraint(f"size {chance.random()}", chance.random())
                study.set_user_attr(chance.choice("abc"), chance.random())
            case "tell" if trial:
                running.remove(trial)
                _tell(study, trial, chance)
            case "pause":
                pause()
            case _:
                pass
    study.enqueue_trial({"float": 0.25})


def list_trials(storage: BaseStorage, name: str, *, times: bool = False) -> list[dict[str, Any]]:
    """Return the trials of a study without ids, for comparisons in which NaN equals NaN."""
    trials = storage.get_all_trials(storage.get_study_id_from_name(name))
    return [_make_comparable(trial, times=times) for trial in trials]


def list_rows(engine: sqlalchemy.Engine) -> dict[str, list[str]]:
    """Return the rows of a database without ids and times, params in the order of ids."""
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    tables = metadata.tables
    with engine.connect() as connection:
        studies = {
            row.study_id: row.study_name for row in _select_all(connection, tables["studies"])
        }
        numbers = {
            row.trial_id: (studies[row.study_id], row.number)
            for row in _select_all(connection, tables["trials"])
        }
        return {
            name: _list_table_rows(connection, table, studies, numbers)
            for name, table in tables.items()
            if name not in {"version_info", "alembic_version"}
        }


def _list_table_rows(
    connection: sqlalchemy.Connection,
    table: sqlalchemy.Table,
    studies: dict[int, str],
    numbers: dict[int, tuple[str, int]],
) -> list[str]:
    key = next(iter(table.primary_key.columns.keys()))
    query = table.select().order_by(table.c[key])
    rows: list[tuple[Any, dict[str, Any]]] = []
    for row in connection.execute(query).mappings():
        columns = {k: v for k, v in row.items() if k != key and not k.startswith("datetime")}
        owner: Any = (studies[row["study_id"]],) if "study_id" in row else numbers[row["trial_id"]]
        columns.pop("study_id", None)
        columns.pop("trial_id", None)
        rows.append((owner, columns))
    if table.name == "trial_params":
        rows.sort(key=lambda pair: pair[0])
        return [repr(pair) for pair in rows]
    return sorted(repr(pair) for pair in rows)


def _select_all(connection: sqlalchemy.Connection, table: sqlalchemy.Table) -> list[Any]:
    return list(connection.execute(table.select()))


def _make_comparable(trial: FrozenTrial, *, times: bool) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "values": repr(trial.values),
        "params": list(trial.params.items()),
        "distributions": trial.distributions,
        "intermediate": repr(sorted(trial.intermediate_values.items())),
        "user": {key: repr(value) for key, value in trial.user_attrs.items()},
        "system": {key: repr(value) for key, value in trial.system_attrs.items()},
        "times": (trial.datetime_start, trial.datetime_complete) if times else None,
    }


def _tell(study: optuna.Study, trial: optuna.Trial, chance: random.Random) -> None:
    state = chance.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, None])
    match state:
        case TrialState.COMPLETE:
            values = [chance.choice([-math.inf, math.inf, 0.3]) for _ in study.directions]
            study.tell(trial, values)
        case TrialState.FAIL:
            study.tell(trial, state=TrialState.FAIL)
        case _:
            study.tell(trial, state=TrialState.PRUNED)


def _choose_value(distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return distribution.choices[-1]
        case FloatDistribution() | IntDistribution():
            return distribution.high
        case _:
            raise AssertionError


_ITEMS = list(DISTRIBUTIONS.items())
