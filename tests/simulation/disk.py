"""Disk: SQLite connections whose statements fail, take long, or are the last of their process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulation.world import Crash, World


class Disk:
    """The state of the disk below the hub's log."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.fails_until = 0.0
        self.n_failing = 0  #: statements that fail next
        self.slow_s = 0.0  #: time that the next statement takes
        self.crash_after: int | None = None  #: statements after which the process dies
        self.is_dead = False  #: whether the process has died, so that nothing is written

    def connect(self, path: Path, **options: Any) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                disk.begin(sql)
                cursor = super().execute(sql, parameters)
                disk.end()
                return cursor

            def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
                disk.begin(sql)
                cursor = super().executemany(sql, rows)
                disk.end()
                return cursor

        return sqlite3.connect(path, factory=Connection, **options)

    def begin(self, sql: str) -> None:
        """Let a statement fail, wait or be cut off before it runs."""
        if self.is_dead or sql == "ROLLBACK":
            return
        if self.slow_s:
            self._world.now += self.slow_s
            self.slow_s = 0.0
        self.count_operation()
        if self.n_failing:
            self.n_failing -= 1
        elif self._world.now >= self.fails_until:
            return
        raise sqlite3.OperationalError("database or disk is full")

    def end(self) -> None:
        """Let the process die after a statement."""
        if not self.is_dead:
            self.count_operation()

    def count_operation(self) -> None:
        """Die if this is the operation that the process does not survive."""
        if self.crash_after is None:
            return
        self.crash_after -= 1
        if self.crash_after <= 0:
            self.crash_after = None
            self.is_dead = True
            raise Crash

    def recover(self) -> None:
        """Begin the life of another process on the same disk."""
        self.is_dead = False
        self.crash_after = None

    def calm_down(self) -> None:
        """End all faults for good."""
        self.crash_after, self.n_failing, self.slow_s, self.fails_until = None, 0, 0.0, 0.0
