"""Batches of changes, conflated: only the newest value of each row is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState


class TrialRow(NamedTuple):
    """A trial's row in the table of trials, and its objective values."""

    state: TrialState
    start: datetime | None
    complete: datetime | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, trial: FrozenTrial) -> TrialRow:
        """Return a snapshot of a trial's row."""
        return cls(
            trial.state, trial.datetime_start, trial.datetime_complete, tuple(trial.values or ())
        )


@dataclass(slots=True)
class AttributeChanges:
    """Attributes that changed, as JSON; of a study or of a trial."""

    user: dict[str, str] = field(default_factory=dict[str, str])
    system: dict[str, str] = field(default_factory=dict[str, str])

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.user) + len(self.system)

    def merge(self, newer: AttributeChanges) -> None:
        """Merge newer changes."""
        self.user.update(newer.user)
        self.system.update(newer.system)

    def rows(self) -> Iterator[AttributeChanges]:
        """Yield each row as a change."""
        for key, value in self.user.items():
            yield AttributeChanges(user={key: value})
        for key, value in self.system.items():
            yield AttributeChanges(system={key: value})


@dataclass(slots=True)
class TrialChange:
    """Changes of one trial. Ids are those of memory."""

    study_id: int
    trial_id: int
    number: int
    #: The trial is new.
    created: bool = False
    #: It waited, and runs now.
    started: bool = False
    head: TrialRow | None = None
    #: Internal values and distributions.
    params: dict[str, tuple[float, BaseDistribution]] = field(
        default_factory=dict[str, tuple[float, BaseDistribution]]
    )
    #: Intermediate values.
    steps: dict[int, float] = field(default_factory=dict[int, float])
    #: Steps that are to be taken out again.
    dropped: set[int] = field(default_factory=set[int])
    attributes: AttributeChanges = field(default_factory=AttributeChanges)

    def __len__(self) -> int:
        """Count the rows."""
        return (
            (self.head is not None)
            + len(self.params)
            + len(self.steps)
            + len(self.dropped)
            + len(self.attributes)
        )

    def merge(self, newer: TrialChange) -> None:
        """Merge newer changes."""
        self.created |= newer.created
        self.started |= newer.started
        self.head = newer.head or self.head
        self.params.update(newer.params)
        for step in newer.dropped:
            self.steps.pop(step, None)
        self.steps.update(newer.steps)
        self.dropped |= newer.dropped
        self.dropped -= newer.steps.keys()
        self.attributes.merge(newer.attributes)

    def rows(self) -> Iterator[TrialChange]:
        """Yield each row as a change, the trial's own row first."""

        def empty() -> TrialChange:
            return TrialChange(self.study_id, self.trial_id, self.number)

        if self.head is not None:
            head = empty()
            head.created, head.started, head.head = self.created, self.started, self.head
            yield head
        for name, param in self.params.items():
            part = empty()
            part.params[name] = param
            yield part
        for step, value in self.steps.items():
            part = empty()
            part.steps[step] = value
            yield part
        for attributes in self.attributes.rows():
            part = empty()
            part.attributes = attributes
            yield part
        if self.dropped:
            part = empty()
            part.dropped = self.dropped
            yield part


@dataclass(slots=True)
class ChangeBatch:
    """Changes that are written together. Ids are those of memory."""

    studies: dict[int, AttributeChanges] = field(default_factory=dict[int, AttributeChanges])
    trials: dict[int, TrialChange] = field(default_factory=dict[int, TrialChange])
    #: Studies that memory let go of: nothing of them comes after this.
    released: set[int] = field(default_factory=set[int])

    def __len__(self) -> int:
        """Count the rows."""
        return sum(map(len, self.studies.values())) + sum(map(len, self.trials.values()))

    def merge(self, newer: ChangeBatch) -> None:
        """Merge a newer batch, which must not be used any more."""
        for study_id, attributes in newer.studies.items():
            if study_id in self.studies:
                self.studies[study_id].merge(attributes)
            else:
                self.studies[study_id] = attributes
        for trial_id, change in newer.trials.items():
            if trial_id in self.trials:
                self.trials[trial_id].merge(change)
            else:
                self.trials[trial_id] = change
        self.released |= newer.released

    def drop(self, study_id: int) -> None:
        """Drop the changes of a study and its trials."""
        self.studies.pop(study_id, None)
        for change in [c for c in self.trials.values() if c.study_id == study_id]:
            del self.trials[change.trial_id]

    def split(self) -> list[ChangeBatch]:
        """Return the batch in smaller batches: halves, then single rows; empty for a single row."""
        parts: list[ChangeBatch] = []
        if len(self.studies) + len(self.trials) > 1:
            trials = list(self.trials.items())
            half = len(trials) // 2
            parts = [
                *(ChangeBatch(studies={key: value}) for key, value in self.studies.items()),
                ChangeBatch(trials=dict(trials[:half])),
                ChangeBatch(trials=dict(trials[half:])),
            ]
        elif len(self) > 1:
            for change in self.trials.values():
                parts += [ChangeBatch(trials={row.trial_id: row}) for row in change.rows()]
            for study_id, attributes in self.studies.items():
                parts += [ChangeBatch(studies={study_id: row}) for row in attributes.rows()]
        return [part for part in parts if len(part)]
