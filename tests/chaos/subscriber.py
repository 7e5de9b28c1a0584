"""A subscriber that stores events together with the next offset, in one transaction.

Arguments: endpoint, name, file.
"""

from __future__ import annotations

import sqlite3
import sys

import trialbus


def main() -> None:
    endpoint, name, path = sys.argv[1:4]
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE IF NOT EXISTS received (publisher TEXT, step INTEGER)")
    db.execute("CREATE TABLE IF NOT EXISTS next (offset INTEGER)")
    (offset,) = db.execute("SELECT coalesce(max(offset), 0) FROM next").fetchone()
    with trialbus.subscribe(
        trialbus.EvaluationComplete, start=offset, name=None, endpoint=endpoint
    ) as inbox:
        print(f"{name} from {offset}", flush=True)
        while True:
            records = inbox.records(1.0)
            rows = [
                (event.study, event.step)
                for record in records
                if isinstance(event := record.event, trialbus.EvaluationComplete)
            ]
            db.execute("BEGIN")
            db.executemany("INSERT INTO received VALUES (?, ?)", rows)
            db.execute("DELETE FROM next")
            db.execute("INSERT INTO next VALUES (?)", (inbox.offset or offset,))
            db.execute("COMMIT")


if __name__ == "__main__":
    main()
