"""RecordedCurve: records only some steps of a long curve, since readers of all would be slow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trialbus_services.optimizer.attributes import THINNED
from trialbus_services.optimizer.storage_writer.change_batch import TrialChange


@dataclass(slots=True)
class RecordedCurve:
    """The recorded steps of a trial: every `stride`-th step, and the last step."""

    stride: int = 1
    steps: set[int] = field(default_factory=set[int])
    first: int | None = None

    @classmethod
    def from_storage(cls, steps: Iterable[int], stride: int) -> RecordedCurve:
        """Return the recorded curve of a trial that was read from the storage."""
        recorded = set(steps)
        return cls(stride, recorded, min(recorded, default=None))

    def thin(self, change: TrialChange, max_points: int) -> None:
        """Remove steps off the stride from a change, and drop recorded steps off a wider stride.

        The stride counts from the first reported step: with a stride of 2, the curve of a trainer
        that reports odd steps only would otherwise be empty.

        Args:
            change: Change of the trial.
            max_points: Largest number of steps on the stride that are recorded.
        """
        if change.void:
            self.steps -= change.void
            self.first = min(self.steps, default=None)
        if not change.steps:
            return
        if self.first is None:
            self.first = next(iter(change.steps))
        steps = self.steps | change.steps.keys()
        stride = self.stride
        while len(kept := self._select_on_stride(steps, stride)) > max_points:
            stride *= 2
        kept.add(max(steps))
        change.dropped |= self.steps - kept
        change.steps = {step: value for step, value in change.steps.items() if step in kept}
        self.steps = kept
        if stride != self.stride:
            self.stride = stride
            change.attributes.user[THINNED] = str(stride)

    def _select_on_stride(self, steps: set[int], stride: int) -> set[int]:
        if stride == 1:
            return set(steps)
        first = self.first or 0
        return {step for step in steps if (step - first) % stride == 0}
