"""Read a study's trials from the tables of an RDBStorage, past Optuna's ORM."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Table, select
from sqlalchemy.engine import Connection

from trialbus_services.optimizer.storage_writer.table_schema import decode, to_local

_FETCHED_ROWS = 10_000


def load_trials(
    connection: Connection, tables: dict[str, Table], study_id: int
) -> list[FrozenTrial]:
    """Read all trials of a study; what is returned equals `RDBStorage.get_all_trials`.

    Args:
        connection: To the database.
        tables: Of it.
        study_id: The study's id in the database.
    """
    return _Loader(connection, tables, study_id).trials()


class _Loader:
    def __init__(self, connection: Connection, tables: dict[str, Table], study_id: int) -> None:
        self._connection = connection
        self._tables = tables
        self._study_id = study_id

    def trials(self) -> list[FrozenTrial]:
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
        heads = self._connection.execute(query).all()
        params, distributions = self._params()
        values = self._floats("trial_values", "objective", "value", "value_type")
        curves = self._floats(
            "trial_intermediate_values",
            "step",
            "intermediate_value",
            "intermediate_value_type",
        )
        user = self._attributes("trial_user_attributes")
        system = self._attributes("trial_system_attributes")
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
                user_attrs=user[trial_id],
                system_attrs=system[trial_id],
                intermediate_values=curves[trial_id],
            )
            for trial_id, number, state, start, complete in heads
        ]

    def _rows(self, name: str, *columns: str) -> Iterator[Any]:
        table, trials = self._tables[name], self._tables["trials"]
        query = (
            select(table.c.trial_id, *(table.c[column] for column in columns))
            .join(trials, trials.c.trial_id == table.c.trial_id)
            .where(trials.c.study_id == self._study_id)
        )
        if name == "trial_params":
            query = query.order_by(table.c.param_id)
        # The driver's own rows: for a million of them SQLAlchemy's take three times as long.
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

    def _floats(
        self, name: str, key: str, value: str, kind: str
    ) -> defaultdict[int, dict[int, float]]:
        found: defaultdict[int, dict[int, float]] = defaultdict(dict)
        for trial_id, at, stored, stored_kind in self._rows(name, key, value, kind):
            found[trial_id][at] = stored if stored_kind == "FINITE" else decode(stored, stored_kind)
        return found

    def _attributes(self, name: str) -> defaultdict[int, dict[str, Any]]:
        found: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for trial_id, key, value in self._rows(name, "key", "value_json"):
            found[trial_id][key] = json.loads(value)
        return found

    def _params(
        self,
    ) -> tuple[defaultdict[int, dict[str, Any]], defaultdict[int, dict[str, BaseDistribution]]]:
        params: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        distributions: defaultdict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        known: dict[str, BaseDistribution] = {}
        rows = self._rows("trial_params", "param_name", "param_value", "distribution_json")
        for trial_id, name, value, text in rows:
            if text not in known:
                known[text] = json_to_distribution(text)
            distributions[trial_id][name] = known[text]
            params[trial_id][name] = known[text].to_external_repr(value)
        return params, distributions
