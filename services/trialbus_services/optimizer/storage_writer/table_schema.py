"""The tables of Optuna's RDBStorage, reflected from a database."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
import sqlalchemy.dialects.mysql
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
from optuna.storages import RDBStorage
from sqlalchemy import Table
from sqlalchemy.engine import Engine

#: The schema that this package knows.
KNOWN_VERSION = "v3.2.0.a"

_COLUMNS = {
    "studies": {"study_id", "study_name"},
    "study_user_attributes": {"study_user_attribute_id", "study_id", "key", "value_json"},
    "study_system_attributes": {"study_system_attribute_id", "study_id", "key", "value_json"},
    "trials": {
        "trial_id",
        "number",
        "study_id",
        "state",
        "datetime_start",
        "datetime_complete",
    },
    "trial_user_attributes": {"trial_user_attribute_id", "trial_id", "key", "value_json"},
    "trial_system_attributes": {"trial_system_attribute_id", "trial_id", "key", "value_json"},
    "trial_params": {"param_id", "trial_id", "param_name", "param_value", "distribution_json"},
    "trial_values": {"trial_value_id", "trial_id", "objective", "value", "value_type"},
    "trial_intermediate_values": {
        "trial_intermediate_value_id",
        "trial_id",
        "step",
        "intermediate_value",
        "intermediate_value_type",
    },
}
#: Tables whose rows are replaced, with what makes a row unique beside its own id.
UPSERTED = {
    "study_user_attributes": ("study_id", "key"),
    "study_system_attributes": ("study_id", "key"),
    "trial_user_attributes": ("trial_id", "key"),
    "trial_system_attributes": ("trial_id", "key"),
    "trial_params": ("trial_id", "param_name"),
    "trial_values": ("trial_id", "objective"),
    "trial_intermediate_values": ("trial_id", "step"),
}
_FLOATS = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
_DIALECTS: dict[str, Any] = {
    "mysql": sqlalchemy.dialects.mysql.insert,
    "mariadb": sqlalchemy.dialects.mysql.insert,
    "postgresql": sqlalchemy.dialects.postgresql.insert,
    "sqlite": sqlalchemy.dialects.sqlite.insert,
}


def find_mismatch(storage: RDBStorage) -> str | None:
    """Return why the tables of a storage cannot be written directly; None if they can be."""
    if storage.engine.name not in _DIALECTS:
        return f"it is a {storage.engine.name} database"
    version = storage.get_current_version()
    if version != KNOWN_VERSION:
        return f"its schema is version {version}, known is {KNOWN_VERSION}"
    tables = reflect(storage.engine)
    for name, columns in _COLUMNS.items():
        if name not in tables or set(tables[name].columns.keys()) != columns:
            return f"its table {name} is not as it should be in version {KNOWN_VERSION}"
    return None


def reflect(engine: Engine) -> dict[str, Table]:
    """Read the tables of a database."""
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, (sqlalchemy.Float, sqlalchemy.Numeric)):
                # MySQL's columns would give decimals.
                column.type = sqlalchemy.Float(53)
    return dict(metadata.tables)


def upsert(engine: Engine, table: Table) -> Any:
    """Return the statement that inserts a row, or updates the row with the same key."""
    statement = _DIALECTS[engine.name](table)
    keys = UPSERTED[table.name]
    own_id = next(iter(table.primary_key.columns.keys()))
    written = [name for name in table.columns.keys() if name not in {own_id, *keys}]  # noqa: SIM118
    statement = statement.values(
        {name: sqlalchemy.bindparam(name) for name in (*keys, *written)},
    )
    if engine.name in {"mysql", "mariadb"}:
        return statement.on_duplicate_key_update({n: statement.inserted[n] for n in written})
    return statement.on_conflict_do_update(
        index_elements=list(keys), set_={n: statement.excluded[n] for n in written}
    )


def encode(value: float) -> tuple[float | None, str]:
    """Return the stored number and the type of a value."""
    value = float(value)
    if math.isfinite(value):
        return value, "FINITE"
    if math.isnan(value):
        return None, "NAN"
    return None, "INF_POS" if value > 0 else "INF_NEG"


def decode(value: float | None, kind: str) -> float:
    """Return the value of a stored number and type; the inverse of `encode`."""
    if kind == "FINITE":
        return math.nan if value is None else value
    return _FLOATS[kind]


def to_utc(moment: datetime | None) -> datetime | None:
    """Return a time as Optuna stores times: in UTC, without a time zone."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def to_local(moment: datetime | None) -> datetime | None:
    """Return a stored time as Optuna returns times: local, without a time zone."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
