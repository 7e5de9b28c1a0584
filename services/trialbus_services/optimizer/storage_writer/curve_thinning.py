"""Record long curves in part: plots need no thousands of points, and readers would be slow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trialbus_services.optimizer.attributes import THINNED
from trialbus_services.optimizer.storage_writer.change_batch import TrialChange


@dataclass(slots=True)
class RecordedCurve:
    """The steps of one trial that are recorded: every `stride`-th, and the last."""

    stride: int = 1
    steps: set[int] = field(default_factory=set[int])
    first: int | None = None

    @classmethod
    def recorded(cls, steps: Iterable[int], stride: int) -> RecordedCurve:
        """Return the curve of a trial that was read from the storage."""
        found = set(steps)
        return cls(stride, found, min(found, default=None))

    def thin(self, change: TrialChange, max_points: int) -> None:
        """Leave out of a change what is not to be recorded; drop what no longer is.

        The stride counts from the first step that was reported, so that a trainer which reports
        only odd steps has a curve as well.
        """
        if not change.steps:
            return
        if self.first is None:
            self.first = next(iter(change.steps))
        wanted = self.steps | change.steps.keys()
        stride = self.stride
        while len(kept := self._on_stride(wanted, stride)) > max_points:
            stride *= 2
        kept.add(max(wanted))
        change.dropped |= self.steps - kept
        change.steps = {step: value for step, value in change.steps.items() if step in kept}
        self.steps = kept
        if stride != self.stride:
            self.stride = stride
            change.attributes.user[THINNED] = str(stride)

    def _on_stride(self, steps: set[int], stride: int) -> set[int]:
        if stride == 1:
            return set(steps)
        first = self.first or 0
        return {step for step in steps if (step - first) % stride == 0}
