"""Limits of databases: whether the tables of a database can hold a study, checked beforehand.

SQLite and PostgreSQL with UTF-8 hold every study. MySQL and MariaDB cut or refuse attributes of
more than 64 KiB, take names that differ in case or accents for the same, and, like a PostgreSQL
database in another encoding than UTF-8, may lack characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy
import sqlalchemy.exc
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import Connection, Engine, make_url

from trialbus.errors import SpecError
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.distributions import make_distribution

_CONNECT_S = 5
_COLUMN = """
    SELECT character_set_name, collation_name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = :table AND column_name = :column
"""
_LENGTH = """
    SELECT character_maximum_length FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'study_user_attributes'
    AND column_name = 'value_json'
"""
_TEXT_BYTES = 65_535


def check_limits(url: str, spec: StudySpec, origin: Mapping[str, Any]) -> None:
    """Check that the database at a URL can hold a study.

    A database that cannot be reached from here is checked by the optimizer.

    Args:
        url: URL of the storage.
        spec: Specification of the study.
        origin: Provenance of the study, which the database keeps as well.

    Raises:
        SpecError: A name or a value cannot be held; names the key and the value.
    """
    backend = make_url(url).get_backend_name()
    timeout = {"connect_timeout": _CONNECT_S} if backend in ("mysql", "postgresql") else {}
    engine = sqlalchemy.create_engine(url, connect_args=timeout)
    try:
        _check_database(engine, spec, origin)
    finally:
        engine.dispose()


def check_storage_limits(storage: BaseStorage, spec: StudySpec, origin: Mapping[str, Any]) -> None:
    """Check that an open storage can hold a study, see `check_limits`.

    Raises:
        SpecError: A name or a value cannot be held; names the key and the value.
    """
    rdb = getattr(storage, "_backend", storage)
    if isinstance(rdb, RDBStorage):
        _check_database(rdb.engine, spec, origin)


def _check_database(engine: Engine, spec: StudySpec, origin: Mapping[str, Any]) -> None:
    if engine.dialect.name not in ("mysql", "mariadb", "postgresql"):
        return
    try:
        connection = engine.connect()
    except sqlalchemy.exc.SQLAlchemyError:
        return
    with connection:
        if engine.dialect.name == "postgresql":
            _check_postgresql(connection, spec)
        else:
            _check_mysql(connection, spec, origin)


def _check_postgresql(connection: Connection, spec: StudySpec) -> None:
    encoding = str(connection.scalar(sqlalchemy.text("SHOW server_encoding")))
    for key, name in _list_names(spec):
        try:
            connection.scalar(sqlalchemy.text("SELECT CAST(:name AS TEXT)"), {"name": name})
        except (sqlalchemy.exc.DBAPIError, UnicodeError):
            raise _make_encoding_error(key, name, encoding) from None


def _check_mysql(connection: Connection, spec: StudySpec, origin: Mapping[str, Any]) -> None:
    _check_mysql_names(connection, "studies", "study_name", [("study.name", spec.name)])
    params = [entry for entry in _list_names(spec) if entry[0] != "study.name"]
    _check_mysql_names(connection, "trial_params", "param_name", params)
    _check_known_study(connection, spec.name)
    limit = int(connection.scalar(sqlalchemy.text(_LENGTH)) or _TEXT_BYTES)
    for key, size in _measure_attributes(spec, origin):
        if size > limit:
            raise SpecError(
                key,
                f"takes {size} bytes of JSON in the database, whose columns hold {limit} (expected "
                "less, or columns of the type LONGTEXT, or another storage.url)",
            )


def _check_mysql_names(
    connection: Connection, table: str, column: str, names: Sequence[tuple[str, str]]
) -> None:
    """Check names with the character set and the collation of a column."""
    columns = connection.execute(sqlalchemy.text(_COLUMN), {"table": table, "column": column})
    charset, collation = (
        columns.first()
        or connection.execute(
            sqlalchemy.text("SELECT @@character_set_database, @@collation_database")
        ).one()
    )
    seen: dict[str, tuple[str, str]] = {}
    for key, name in names:
        # By the database itself: only it knows its character sets and collations.
        stored, sorting = connection.execute(
            sqlalchemy.text(
                f"SELECT CONVERT(CONVERT(:name USING {charset}) USING utf8mb4), "
                f"HEX(WEIGHT_STRING(CONVERT(:name USING {charset}) COLLATE {collation}))"
            ),
            {"name": name},
        ).one()
        if stored != name:
            raise _make_encoding_error(key, name, charset)
        other = seen.setdefault(sorting, (key, name))
        if other != (key, name):
            raise SpecError(
                key,
                f"{name!r} is the same name as {other[1]!r} to the database, whose collation is "
                f"{collation} (expected another name)",
            )


def _check_known_study(connection: Connection, name: str) -> None:
    query = sqlalchemy.text("SELECT study_name FROM studies WHERE study_name = :name")
    try:
        known = connection.scalar(query, {"name": name})
    except sqlalchemy.exc.ProgrammingError:  # the tables do not exist yet
        return
    if known is not None and known != name:
        raise SpecError(
            "study.name",
            f"{name!r} is the same name as {known!r}, a study in the database, whose collation "
            "tells neither case nor accents apart (expected another name)",
        )


def _list_names(spec: StudySpec) -> Iterable[tuple[str, str]]:
    yield "study.name", spec.name
    for name in spec.params:
        yield f"study.params.{name}", name
    for name in spec.fixed:
        yield f"study.fixed.{name}", name


def _measure_attributes(spec: StudySpec, origin: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """Yield the key of the part of a study that a column holds, and the bytes of its JSON."""
    for name, param in spec.space.items():
        key = f"study.{'fixed' if name in spec.fixed else 'params'}.{name}"
        yield key, len(distribution_to_json(make_distribution(param)))
    data = msgspec.to_builtins(spec)
    largest = max(data, key=lambda name: len(json.dumps(data[name])))
    yield f"study.{largest}", len(json.dumps(data))
    yield "study", len(json.dumps(dict(origin), default=str))


def _make_encoding_error(key: str, name: str, encoding: str) -> SpecError:
    return SpecError(
        key,
        f"{name!r} has a character that the database lacks, whose encoding is {encoding} (expected "
        "other characters, or a database with UTF-8)",
    )
