"""ChangeBatch: the newest value of each row that changed, without the values in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.attributes import HANDED_OUT


class TrialRow(NamedTuple):
    """The row of a trial in the table `trials`, with the objective values."""

    state: TrialState
    start: datetime | None
    complete: datetime | None
    values: tuple[float, ...]

    @classmethod
    def from_trial(cls, trial: FrozenTrial) -> TrialRow:
        """Return the present row of a trial."""
        return cls(
            trial.state, trial.datetime_start, trial.datetime_complete, tuple(trial.values or ())
        )


@dataclass(slots=True)
class AttributeChanges:
    """Changed attributes of a study or a trial, as JSON."""

    user: dict[str, str] = field(default_factory=dict[str, str])
    system: dict[str, str] = field(default_factory=dict[str, str])
    dropped: set[str] = field(default_factory=set[str])
    """Keys of system attributes that are deleted from the storage."""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.user) + len(self.system) + len(self.dropped)

    def merge(self, newer: AttributeChanges) -> None:
        """Merge newer changes."""
        self.user.update(newer.user)
        for key in newer.dropped:
            self.system.pop(key, None)
        self.system.update(newer.system)
        self.dropped |= newer.dropped
        self.dropped -= newer.system.keys()

    def split(self) -> Iterator[AttributeChanges]:
        """Yield a change for each row."""
        for key, value in self.user.items():
            yield AttributeChanges(user={key: value})
        for key, value in self.system.items():
            yield AttributeChanges(system={key: value})
        if self.dropped:
            yield AttributeChanges(dropped=self.dropped)


@dataclass(slots=True)
class TrialChange:
    """Changes of a trial; all ids are ids in memory."""

    study_id: int
    trial_id: int
    number: int
    is_new: bool = False
    """Whether the storage does not have the trial."""
    is_started: bool = False
    """Whether the trial waited before the change and runs after it."""
    row: TrialRow | None = None
    params: dict[str, tuple[float, BaseDistribution]] = field(
        default_factory=dict[str, tuple[float, BaseDistribution]]
    )
    """Internal value and distribution of each param."""
    steps: dict[int, float] = field(default_factory=dict[int, float])
    """Intermediate values by step."""
    dropped: set[int] = field(default_factory=set[int])
    """Steps whose intermediate values are deleted from the storage, to thin the curve."""
    void: set[int] = field(default_factory=set[int])
    """Steps whose intermediate values are deleted, since a new attempt does not take them over."""
    attributes: AttributeChanges = field(default_factory=AttributeChanges)

    def __len__(self) -> int:
        """Count the rows."""
        return (
            (self.row is not None)
            + len(self.params)
            + len(self.steps)
            + len(self.dropped)
            + len(self.void)
            + len(self.attributes)
        )

    @property
    def changes_open_trial(self) -> bool:
        """Whether the change is possible only while the trial is open; most attributes are not."""
        changes_attempt = HANDED_OUT in self.attributes.user
        changes_values = self.params or self.steps or self.dropped or self.void
        return bool(self.row or changes_attempt or changes_values)

    def find_conflict(self, state: TrialState) -> str | None:
        """Return what another program did to a trial that has a state; None for nothing.

        Args:
            state: State of the trial in the storage, before the change.
        """
        if state.is_finished():
            return f"ended trial {self.number} as {state.name}"
        if self.is_started and state is TrialState.RUNNING:
            return f"begun the waiting trial {self.number}"
        return None

    def merge(self, newer: TrialChange) -> None:
        """Merge newer changes."""
        self.is_new |= newer.is_new
        self.is_started |= newer.is_started
        self.row = newer.row or self.row
        self.params.update(newer.params)
        for step in newer.dropped | newer.void:
            self.steps.pop(step, None)
        self.steps.update(newer.steps)
        self.dropped |= newer.dropped
        self.dropped -= newer.steps.keys()
        self.void |= newer.void
        self.void -= newer.steps.keys()
        self.attributes.merge(newer.attributes)

    def split(self) -> Iterator[TrialChange]:
        """Yield a change for each row, the row in the table `trials` first."""

        def empty() -> TrialChange:
            return TrialChange(self.study_id, self.trial_id, self.number)

        if self.row is not None:
            part = empty()
            part.is_new, part.is_started, part.row = self.is_new, self.is_started, self.row
            yield part
        for name, param in self.params.items():
            part = empty()
            part.params[name] = param
            yield part
        if self.dropped or self.void:
            part = empty()
            part.dropped, part.void = self.dropped, self.void
            yield part
        for step, value in self.steps.items():
            part = empty()
            part.steps[step] = value
            yield part
        for attributes in self.attributes.split():
            part = empty()
            part.attributes = attributes
            yield part


@dataclass(slots=True)
class ChangeBatch:
    """Changes that are written together; all ids are ids in memory."""

    studies: dict[int, AttributeChanges] = field(default_factory=dict[int, AttributeChanges])
    trials: dict[int, TrialChange] = field(default_factory=dict[int, TrialChange])
    released: set[int] = field(default_factory=set[int])
    """Studies that were removed from memory: later batches have no changes of them."""

    def __len__(self) -> int:
        """Count the rows."""
        return sum(map(len, self.studies.values())) + sum(map(len, self.trials.values()))

    def merge(self, newer: ChangeBatch) -> None:
        """Merge a newer batch, which must not be used afterwards."""
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
        """Drop the changes of a study and of the study's trials."""
        self.studies.pop(study_id, None)
        for change in [c for c in self.trials.values() if c.study_id == study_id]:
            del self.trials[change.trial_id]

    def split(self) -> list[ChangeBatch]:
        """Split the batch into halves, or into single rows; return no parts of a single row."""
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
                parts += [ChangeBatch(trials={row.trial_id: row}) for row in change.split()]
            for study_id, attributes in self.studies.items():
                parts += [ChangeBatch(studies={study_id: row}) for row in attributes.split()]
        return [part for part in parts if len(part)]
