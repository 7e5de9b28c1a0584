"""Durable names: the key, the patterns and the current subscriber of each name.

An offset is only worth something together with the patterns that were read up to it, so a name
keeps the patterns of its first fetch. With keys, a name belongs to the key that used it first. A
subscriber that begins to read under a name takes over from the one before, whose next commit is
refused: two at once would move each other's offset.
"""

from __future__ import annotations

from trialbus.hub.log import Change, EventLog
from trialbus.hub.log_state import NameUse
from trialbus.protocol import frames, limits
from trialbus.protocol.permissions import Role

_MAX_READERS = 2 * limits.DURABLE_NAMES
_TOO_MANY = f"more than {limits.DURABLE_NAMES} durable names; remove those that nobody reads under"


class DurableNames:
    """Answers whether a fetch or a commit may use a durable name.

    Args:
        log: Holds the names, their offsets and what they read.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        #: Newest reader of each name, also of names that a refused commit or a `forget` was about.
        self._readers: dict[str, str] = {}

    def begin(
        self, name: str, fetch: frames.Fetch, offset: int, key: str, role: Role | None
    ) -> tuple[Change, str | None]:
        """Return a fetch's change of the log, and the reason why the fetch is refused, or None.

        Args:
            name: The durable name.
            fetch: The fetch.
            offset: Where it begins if the name is new.
            key: Name of the client's key; empty without keys.
            role: Role of the client's key.
        """
        known = self._log.readings.get(name)
        patterns = "\n".join(sorted(set(fetch.patterns)))
        if known is not None and not _is_owner(known, key, role):
            return Change(), f"durable name {name!r} belongs to the key {known.key!r}"
        if known is not None and known.patterns != patterns:
            return Change(), (
                f"durable name {name!r} reads {', '.join(known.patterns.split())}; under another"
                " filter it would miss what it has passed over. Choose another name, or begin"
                f" anew: trialbus forget --name {name}"
            )
        if name not in self._log.durable and len(self._log.durable) >= limits.DURABLE_NAMES:
            return Change(), _TOO_MANY
        if fetch.reader:
            self._set_reader(name, fetch.reader)
        change = Change()
        if name not in self._log.durable:
            change.committed[name] = offset
        if known is None:
            change.readings[name] = NameUse(key, patterns)
        return change, None

    def find_refusal(
        self, commit: frames.Commit, pending: Change, key: str, role: Role | None
    ) -> tuple[int, str] | None:
        """Return the code and the reason of why a commit is refused, or None.

        Args:
            commit: The commit.
            pending: What this turn adds to the log before it.
            key: Name of the client's key; empty without keys.
            role: Role of the client's key.
        """
        name = commit.name
        known = self._log.readings.get(name)
        if known is not None and not _is_owner(known, key, role):
            return frames.FORBIDDEN, f"durable name {name!r} belongs to the key {known.key!r}"
        if commit.reader and name not in self._readers:
            self._set_reader(name, commit.reader)
        if commit.reader and commit.reader != self._readers[name]:
            return frames.CONFLICT, f"another subscriber took over the durable name {name!r}"
        durable = self._log.durable
        if name not in durable and name not in pending.committed:
            n_new = sum(new not in durable for new in pending.committed)
            if len(durable) + n_new >= limits.DURABLE_NAMES:
                return frames.CONFLICT, _TOO_MANY
        return None

    def _set_reader(self, name: str, reader: str) -> None:
        self._readers[name] = reader
        if len(self._readers) > _MAX_READERS:
            durable = self._log.durable
            self._readers = {known: id_ for known, id_ in self._readers.items() if known in durable}
            self._readers[name] = reader


def _is_owner(reading: NameUse, key: str, role: Role | None) -> bool:
    return role == "service" or not reading.key or reading.key == key
