"""Stored log: the events of a log on disk, read without a hub and without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from trialbus.errors import LogError
from trialbus.hub.integrity import VerifiedReader
from trialbus.hub.log_check import (
    check_format,
    find_log,
    iterate_events,
    open_to_read,
    read_watermark,
)
from trialbus.hub.log_state import read_state
from trialbus.hub.small_tables import SmallTables
from trialbus.hub.wal import is_wal_alone
from trialbus.messages.topics import list_matching_patterns
from trialbus.protocol.frames import Record


def has_stored_log(directory: Path | str) -> bool:
    """Tell whether a folder holds a log."""
    try:
        return not is_wal_alone(find_log(directory))
    except LogError:
        return False


def read_stored_events(
    directory: Path | str, patterns: frozenset[str] = frozenset({"*/*/*"}), first: int = 0
) -> Iterator[Record]:
    """Yield the intact events of a log that match, in order; a hub may be running.

    Args:
        directory: Folder of the log.
        patterns: Patterns of topics, of which an event matches at least one.
        first: Offset to begin with.

    Raises:
        LogError: There is no log in the folder, or it has the format of another version.

    Example:
        >>> [record.topic for record in read_stored_events(".trialbus")]  # doctest: +SKIP
        ['study_submitted/digits/']
    """
    path = find_log(directory)
    with closing(open_to_read(path)) as db:
        check_format(db, path)
        db.execute("BEGIN")
        reader = VerifiedReader(db)
        state = read_state(db, SmallTables(db), reader, read_watermark(path), salvage=True)
        for record in iterate_events(reader, state.end, first):
            if not patterns.isdisjoint(list_matching_patterns(record.topic)):
                yield record
