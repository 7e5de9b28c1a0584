"""The interface of writers, and where the storage keeps each study."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Protocol

import sqlalchemy.exc
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from trialbus_services.optimizer.storage_writer.change_batch import ChangeBatch, TrialChange
from trialbus_services.optimizer.storage_writer.curve_thinning import RecordedCurve

logger = logging.getLogger(__name__)

#: Errors that say: this row will never be taken. All others may pass.
_REFUSALS = (
    sqlalchemy.exc.IntegrityError,
    sqlalchemy.exc.DataError,
    UpdateFinishedTrialError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
)


class StudyLostError(Exception):
    """A study can no longer be recorded.

    Args:
        study_id: The study's id in memory.
        reason: What happened, with the study's name.
    """

    def __init__(self, study_id: int, reason: str) -> None:
        super().__init__(reason)
        self.study_id = study_id
        self.reason = reason


@dataclass
class StoredStudy:
    """A study in the storage: its ids there, and its recorded curves."""

    name: str
    #: The study's id there.
    study_id: int
    #: Trial ids there, by those of memory.
    trials: dict[int, int] = field(default_factory=dict[int, int])
    #: What is recorded of the curves of unfinished trials, by memory's trial ids; only if thinned.
    curves: dict[int, RecordedCurve] = field(default_factory=dict[int, RecordedCurve])
    #: The highest id there.
    newest: int = 0

    def add(self, trial_id: int, recorded_id: int) -> None:
        """Note that a trial of memory is recorded."""
        self.trials[trial_id] = recorded_id
        self.newest = max(self.newest, recorded_id)


#: By memory's study ids.
StoredStudies = dict[int, StoredStudy]


class Writer(Protocol):
    """Writes batches to one kind of storage. `write` is called by one thread only."""

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """Read all trials of a study by its id in the storage, in the order of their numbers."""
        ...

    def write(self, batch: ChangeBatch, stored_studies: StoredStudies) -> None:
        """Write a batch; what will never be taken is logged and left out.

        After an exception the same batch, or one with more in it, is to be written again: what was
        written already does no harm.

        Raises:
            StudyLostError: A study can no longer be recorded.
            Exception: The storage cannot be written now.
        """
        ...


def is_refusal(error: BaseException) -> bool:
    """Tell whether an error is about what was written, and not about the storage's condition."""
    return isinstance(error, _REFUSALS) or isinstance(error.__cause__, _REFUSALS)


def log_refusal(
    stored_study: StoredStudy, change: TrialChange | None, what: str, error: BaseException
) -> None:
    """Log a row that the storage refused, with the reason."""
    whose = (
        f"study {stored_study.name!r}"
        if change is None
        else f"trial {change.number} of {stored_study.name!r}"
    )
    cause = error.__cause__ or error
    reason = str(getattr(cause, "orig", None) or cause).splitlines() or [type(cause).__name__]
    logger.error("%s: the storage refuses %s, it is left out: %s", whose, what, reason[0])
