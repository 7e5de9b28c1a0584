"""Checks of a storage's URL leave a database and its locks as they are."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from trialbus_services.optimizer.storage import check_url, is_sqlite

WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO numbers VALUES (2)")
connection.commit()
connection.close()
"""


def test_a_check_leaves_the_locks_of_a_connection_in_the_same_process(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE numbers (number INTEGER)")
        connection.commit()
        check_url(f"sqlite:///{database}")
        # Without this connection's locks, the last to close removes the log that is read here.
        subprocess.run([sys.executable, "-c", WRITE, str(database)], check=True)
        assert (tmp_path / "studies.db-wal").exists()
        assert connection.execute("SELECT number FROM numbers").fetchall() == [(2,)]


def test_a_check_leaves_no_file(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE numbers (number INTEGER)")
    check_url(f"sqlite:///{database}")
    assert [file.name for file in tmp_path.iterdir()] == ["studies.db"]
    for content in (b"", b"x", b"x" * 200):
        (tmp_path / "other").write_bytes(content)
        assert not is_sqlite(tmp_path / "other")
