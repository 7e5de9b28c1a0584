"""Trial loader: reads the trials of a study from the tables of an RDBStorage, without the ORM."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Table, select
from sqlalchemy.engine import Connection

from trialbus_services.optimizer.storage_writer.table_schema import decode_value, to_local

_FETCHED_ROWS = 10_000


def load_trials(
    connection: Connection, tables: dict[str, Table], study_id: int
) -> list[FrozenTrial]:
    """Return all trials of a study, equal to the trials of `RDBStorage.get_all_trials`.

    Args:
        connection: Connection to the database.
        tables: Tables of the database.
        study_id: Id of the study in the database.
    """
    return _TrialLoader(connection, tables, study_id).load_trials()


class _TrialLoader:
    def __init__(self, connection: Connection, tables: dict[str, Table], study_id: int) -> None:
        self._connection = connection
        self._tables = tables
        self._study_id = study_id

    def load_trials(self) -> list[FrozenTrial]:
        trials = self._tables["trials"].c
        query = (
            select(
                trials.trial_id,
                trials.number,
                trials.state,
                trials.datetime_start,
                trials.datetime_complete,
            )
            .where(trials.study_id == self._study_id)
            .order_by(trials.number)
        )
        rows = self._connection.execute(query).all()
        params, distributions = self._load_params()
        values = self._load_values("trial_values", "objective", "value", "value_type")
        curves = self._load_values(
            "trial_intermediate_values",
            "step",
            "intermediate_value",
            "intermediate_value_type",
        )
        user_attrs = self._load_attributes("trial_user_attributes")
        system_attrs = self._load_attributes("trial_system_attributes")
        return [
            FrozenTrial(
                trial_id=trial_id,
                number=number,
                state=TrialState[state],
                value=None,
                values=[v for _, v in sorted(values[trial_id].items())] or None,
                datetime_start=to_local(start),
                datetime_complete=to_local(complete),
                params=params[trial_id],
                distributions=distributions[trial_id],
                user_attrs=user_attrs[trial_id],
                system_attrs=system_attrs[trial_id],
                intermediate_values=curves[trial_id],
            )
            for trial_id, number, state, start, complete in rows
        ]

    def _read_rows(self, name: str, *columns: str) -> Iterator[Any]:
        table, trials = self._tables[name], self._tables["trials"]
        query = (
            select(table.c.trial_id, *(table.c[column] for column in columns))
            .join(trials, trials.c.trial_id == table.c.trial_id)
            .where(trials.c.study_id == self._study_id)
        )
        if name == "trial_params":
            query = query.order_by(table.c.param_id)
        # Rows of the driver: reading a million rows by SQLAlchemy takes three times as long.
        statement = query.compile(
            dialect=self._connection.dialect, compile_kwargs={"literal_binds": True}
        )
        cursor = self._connection.connection.cursor()
        try:
            cursor.execute(str(statement))
            while rows := cursor.fetchmany(_FETCHED_ROWS):
                yield from rows
        finally:
            cursor.close()

    def _load_values(
        self, name: str, key_column: str, number_column: str, type_column: str
    ) -> defaultdict[int, dict[int, float]]:
        values: defaultdict[int, dict[int, float]] = defaultdict(dict)
        rows = self._read_rows(name, key_column, number_column, type_column)
        for trial_id, key, number, value_type in rows:
            values[trial_id][key] = (
                number if value_type == "FINITE" else decode_value(number, value_type)
            )
        return values

    def _load_attributes(self, name: str) -> defaultdict[int, dict[str, Any]]:
        attributes: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for trial_id, key, text in self._read_rows(name, "key", "value_json"):
            attributes[trial_id][key] = json.loads(text)
        return attributes

    def _load_params(
        self,
    ) -> tuple[defaultdict[int, dict[str, Any]], defaultdict[int, dict[str, BaseDistribution]]]:
        params: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        distributions: defaultdict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        parsed: dict[str, BaseDistribution] = {}
        rows = self._read_rows("trial_params", "param_name", "param_value", "distribution_json")
        for trial_id, name, value, text in rows:
            if text not in parsed:
                parsed[text] = json_to_distribution(text)
            distributions[trial_id][name] = parsed[text]
            params[trial_id][name] = parsed[text].to_external_repr(value)
        return params, distributions
