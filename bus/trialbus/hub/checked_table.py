"""CheckedTable: a small table of the log with a checksum in each row.

SQLite's pages carry none, and a changed bit in a publisher's number or a durable name's offset
would lose events as surely as one in an event.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

Row: TypeAlias = tuple[Any, ...]

_SQL_TYPES = {str: "TEXT", bytes: "BLOB", int: "INTEGER", float: "REAL"}
_encode = msgspec.msgpack.Encoder().encode


class CheckedTable:
    """Definition of a table, with functions to read and write rows.

    Args:
        name: Name of the table.
        columns: Type of every column by its name; the first is the key, the others may be NULL.
    """

    def __init__(self, name: str, columns: dict[str, type]) -> None:
        self.name = name
        self._types = list(columns.values())
        names = list(columns)
        typed = ", ".join(f"{column} {_SQL_TYPES[type_]}" for column, type_ in columns.items())
        self.create = (
            f"CREATE TABLE {name} ({typed}, checksum INTEGER, PRIMARY KEY ({names[0]}))"
            " WITHOUT ROWID"
        )
        # Text as bytes: SQLite refuses to return a text that is not UTF-8.
        cast = (
            f"CAST({column} AS BLOB)" if type_ is str else column
            for column, type_ in columns.items()
        )
        self.select = f"SELECT {', '.join(cast)}, checksum FROM {name}"  # noqa: S608
        marks = ", ".join("?" * (len(names) + 1))
        self._insert = f"INSERT OR REPLACE INTO {name} VALUES ({marks})"  # noqa: S608
        self._delete = f"DELETE FROM {name} WHERE {names[0]} = ?"  # noqa: S608

    def put(self, db: sqlite3.Connection, rows: Iterable[Row]) -> list[tuple[Row, int]]:
        """Insert rows, or replace rows of the same key; return the rows with checksums."""
        checked = [(row, self.checksum(row)) for row in rows]
        db.executemany(self._insert, [(*row, checksum) for row, checksum in checked])
        return checked

    def remove(self, db: sqlite3.Connection, key: str | bytes | int) -> None:
        """Remove the row of a key, if such a row exists."""
        db.execute(self._delete, (key,))

    def clear(self, db: sqlite3.Connection) -> None:
        """Remove every row."""
        db.execute(f"DELETE FROM {self.name}")  # noqa: S608

    def read(self, db: sqlite3.Connection, intact: list[Row], damaged: list[Row]) -> None:
        """Append each row, without the checksum, to the list of verified or of damaged rows.

        Raises:
            sqlite3.DatabaseError: A page cannot be read; the rows before it are in the lists.
        """
        for stored in db.execute(self.select):
            row = self.verify(stored)
            if row is None:
                damaged.append(stored[:-1])
            else:
                intact.append(row)

    def verify(self, stored: Row) -> Row | None:
        """Return a row of `select` without the checksum; None if the checksum does not match."""
        values: list[Any] = list(stored[:-1])
        value: Any
        for i, (value, type_) in enumerate(zip(values, self._types, strict=True)):
            if value is None:
                continue
            if type_ is not str:
                if not isinstance(value, type_):
                    return None
            elif isinstance(value, bytes):
                try:
                    values[i] = value.decode()
                except UnicodeDecodeError:
                    return None
            else:
                return None
        row = tuple(values)
        return row if self.checksum(row) == stored[-1] else None

    def verify_carved(self, values: Row) -> Row | None:
        """Return a row that was read from a page without SQLite; None if it is of another table."""
        if len(values) != len(self._types) + 1:
            return None
        # SQLite stores a whole number of a column of numbers as an integer.
        floats = [
            float(value) if type_ is float and isinstance(value, int) else value
            for value, type_ in zip(values, self._types, strict=False)
        ]
        return self.verify((*floats, values[-1]))

    def checksum(self, row: Row) -> int:
        """Return the checksum of a row, which is never 0."""
        return zlib.crc32(_encode((self.name, *row))) or 1
