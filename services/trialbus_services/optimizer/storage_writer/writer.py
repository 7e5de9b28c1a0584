"""Writer: the protocol of writers, and the ids by which a storage keeps a study."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Protocol

import sqlalchemy.exc
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from trialbus.errors import TrialbusError
from trialbus_services.optimizer.storage_writer.change_batch import ChangeBatch, TrialChange
from trialbus_services.optimizer.storage_writer.curve_thinning import RecordedCurve

logger = logging.getLogger(__name__)

#: Errors of a row that the storage will never accept. All other errors may be temporary.
_REFUSALS = (
    sqlalchemy.exc.IntegrityError,
    sqlalchemy.exc.DataError,
    UpdateFinishedTrialError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
)


class StudyLostError(TrialbusError):
    """A study can no longer be recorded.

    Args:
        study_id: Id of the study in memory.
        reason: The reason, with the name of the study.
    """

    def __init__(self, study_id: int, reason: str) -> None:
        super().__init__(reason)
        self.study_id = study_id
        self.reason = reason

    @classmethod
    def of_deleted(cls, study_id: int, name: str) -> StudyLostError:
        """Return the error of a study that another program has deleted."""
        return cls(study_id, f"another program has deleted the study {name!r}")


class StorageLostError(TrialbusError):
    """What a storage, or a study in it, has recorded is gone; the message says why."""


class RebuildError(StorageLostError):
    """A study that the storage lost cannot be rebuilt from the log; the message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the storage has lost trials of the study, and the log cannot restore them: {reason}; "
            "restore the storage from a backup, or submit the study again to begin anew"
        )


@dataclass
class StoredStudy:
    """The ids and the recorded curves of a study in the storage."""

    name: str
    study_id: int
    """Id of the study in the storage."""
    trial_ids: dict[int, int] = field(default_factory=dict[int, int])
    """Ids of trials in the storage, by their ids in memory."""
    curves: dict[int, RecordedCurve] = field(default_factory=dict[int, RecordedCurve])
    """Recorded curves of open trials by the id in memory; empty where all values are recorded."""
    newest_trial_id: int = 0
    """Highest trial id in the storage."""
    newest_number: int = -1
    """Highest number of a trial in the storage."""
    ended: set[int] = field(default_factory=set[int])
    """Ids in memory of the trials whose end was written."""
    taken: set[int] = field(default_factory=set[int])
    """Ids in memory of trials that another program has: not handed out, or not written any more."""
    dropped: set[int] = field(default_factory=set[int])
    """Ids in memory of trials that another program ended or runs: their changes are dropped."""
    conflicts: list[str] = field(default_factory=list[str])
    """What another program did, until the optimizer has loaded the study again."""

    def add_trial(self, trial_id: int, recorded_id: int, number: int) -> None:
        """Add a trial by the id in memory, and by id and number in the storage."""
        self.trial_ids[trial_id] = recorded_id
        self.newest_trial_id = max(self.newest_trial_id, recorded_id)
        self.newest_number = max(self.newest_number, number)

    def add_conflict(self, trial_id: int, conflict: str, *, is_dropped: bool = False) -> None:
        """Note that another program has a trial.

        Args:
            trial_id: Id of the trial in memory.
            conflict: What the other program did: "added trial 3".
            is_dropped: Whether the trial's changes are dropped from now on.
        """
        logger.warning(
            "another program has %s in the study %r, which runs here; the study is loaded again",
            conflict,
            self.name,
        )
        self.taken.add(trial_id)
        if is_dropped:
            self.dropped.add(trial_id)
        self.conflicts.append(conflict)


#: Stored studies by the study's id in memory.
StoredStudies = dict[int, StoredStudy]


class Writer(Protocol):
    """A writer of batches for a type of storage; only the flush thread calls `write`."""

    def read_trials(self, study_id: int) -> list[FrozenTrial]:
        """Return all trials of a study, sorted by number; `study_id` is the id in the storage."""
        ...

    def write(self, batch: ChangeBatch, stored_studies: StoredStudies) -> None:
        """Write a batch; rows that the storage refuses are logged and left out.

        After an exception the caller writes the same batch again, possibly with more changes: rows
        that were written before the exception may be written twice.

        What another program did to a trial meanwhile is noted in the stored study: a trial whose
        number was taken gets the next number, and a trial that has ended elsewhere keeps that end.

        Raises:
            StudyLostError: A study can no longer be recorded.
            Exception: The storage cannot be written now.
        """
        ...


def is_refusal(error: BaseException) -> bool:
    """Return whether an error is about a row, and not about the condition of the storage."""
    return isinstance(error, _REFUSALS) or isinstance(error.__cause__, _REFUSALS)


def log_refusal(
    stored_study: StoredStudy, change: TrialChange | None, row: str, error: BaseException
) -> None:
    """Log a row that the storage refused, with the reason."""
    owner = (
        f"study {stored_study.name!r}"
        if change is None
        else f"trial {change.number} of {stored_study.name!r}"
    )
    cause = error.__cause__ or error
    reason = str(getattr(cause, "orig", None) or cause).splitlines() or [type(cause).__name__]
    logger.error("%s: the storage refuses %s, which is left out: %s", owner, row, reason[0])
