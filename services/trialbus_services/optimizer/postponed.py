"""PostponedRecords: the records of the log that studies which wait for the storage get later."""

from __future__ import annotations

from trialbus.client.subscriber import Record
from trialbus.messages import events
from trialbus.messages.topics import escape_study

_OF_EVERY_STUDY = frozenset(
    str(type_.__struct_config__.tag) for type_ in (events.RequestWithdrawn, events.TrainerLost)
)


class PostponedRecords:
    """Records about studies that cannot be opened yet, for each study in the order of the log.

    What ends a request or a session is about every study: a postponed study gets it in its turn,
    between its own records, and the others get it at once.
    """

    def __init__(self) -> None:
        self._records: dict[str, list[Record]] = {}

    def __bool__(self) -> bool:
        return bool(self._records)

    def __contains__(self, study: str) -> bool:
        return escape_study(study) in self._records

    def postpone(self, study: str) -> None:
        """Keep the records about a study from now on."""
        self._records.setdefault(escape_study(study), [])

    def keep(self, record: Record) -> bool:
        """Keep a record for the postponed studies; return whether it is about no other study."""
        kind, study = record.topic.split("/")[:2]
        if kind in _OF_EVERY_STUDY:
            for records in self._records.values():
                records.append(record)
            return False
        if study not in self._records:
            return False
        self._records[study].append(record)
        return True

    def pop(self, study: str) -> list[Record]:
        """Return the records of a study, which is not postponed any more."""
        return self._records.pop(escape_study(study))

    def keep_for(self, study: str, *records: Record) -> None:
        """Keep records that `pop` returned for a study that still waits, or waits again."""
        self._records[escape_study(study)] += records
