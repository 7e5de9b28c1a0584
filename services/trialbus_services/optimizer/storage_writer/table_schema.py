"""Table schema: the tables of Optuna's RDBStorage, loaded from a database and checked."""

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

#: Version of the schema that can be written directly.
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
#: Tables whose rows are replaced, with the columns that identify a row.
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
    """Return why the tables of a storage cannot be written directly; None for a known schema."""
    if storage.engine.name not in _DIALECTS:
        return f"{storage.engine.name} databases are not supported"
    version = storage.get_current_version()
    if version != KNOWN_VERSION:
        return f"the schema is version {version} (expected {KNOWN_VERSION})"
    tables = load_tables(storage.engine)
    for name, columns in _COLUMNS.items():
        if name not in tables or set(tables[name].columns.keys()) != columns:
            return f"the table {name} does not have the columns of version {KNOWN_VERSION}"
    return None


def load_tables(engine: Engine) -> dict[str, Table]:
    """Load the descriptions of a database's tables, by name."""
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, (sqlalchemy.Float, sqlalchemy.Numeric)):
                # Else MySQL returns decimals.
                column.type = sqlalchemy.Float(53)
    return dict(metadata.tables)


def make_upsert(engine: Engine, table: Table) -> Any:
    """Make a statement that inserts a row, or updates the row with the same key."""
    statement = _DIALECTS[engine.name](table)
    keys = UPSERTED[table.name]
    row_id = next(iter(table.primary_key.columns.keys()))
    values = [name for name in table.columns.keys() if name not in {row_id, *keys}]  # noqa: SIM118
    statement = statement.values(
        {name: sqlalchemy.bindparam(name) for name in (*keys, *values)},
    )
    if engine.name in {"mysql", "mariadb"}:
        return statement.on_duplicate_key_update({n: statement.inserted[n] for n in values})
    return statement.on_conflict_do_update(
        index_elements=list(keys), set_={n: statement.excluded[n] for n in values}
    )


def encode_value(value: float) -> tuple[float | None, str]:
    """Return the number and the type by which the database stores a value."""
    value = float(value)
    if math.isfinite(value):
        return value, "FINITE"
    if math.isnan(value):
        return None, "NAN"
    return None, "INF_POS" if value > 0 else "INF_NEG"


def decode_value(number: float | None, value_type: str) -> float:
    """Return the value of a stored number and type; the inverse of `encode_value`."""
    if value_type == "FINITE":
        return math.nan if number is None else number
    return _FLOATS[value_type]


def to_utc(time: datetime | None) -> datetime | None:
    """Return a time as Optuna stores times: in UTC, without a time zone."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)


def to_local(time: datetime | None) -> datetime | None:
    """Return a stored time as Optuna returns times: local, without a time zone."""
    if time is None:
        return None
    return time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
