"""The curve of a trial: its reported values, with best, last and previous step kept current."""

from __future__ import annotations

import math


class Curve:
    """Values by step. In the order of their steps, taking one in costs the same at any length.

    Args:
        maximize: Whether more is better.
    """

    __slots__ = ("_maximize", "before", "best", "last", "restarts", "values")

    def __init__(self, *, maximize: bool) -> None:
        self._maximize = maximize
        self.values: dict[int, float] = {}
        self.last = -1  #: highest step
        self.before = -1  #: highest step but one
        self.best = math.nan  #: best value; NaN if there is none but NaN
        self.restarts = 0  #: grows when a value came out of the order of the steps

    @classmethod
    def ended(cls, values: dict[int, float]) -> Curve:
        """Return the curve of a trial that has ended, of which only the values are asked for."""
        curve = cls(maximize=False)
        curve.values = values
        curve.last = max(values, default=-1)
        return curve

    @property
    def last_value(self) -> float:
        """The value of the highest step."""
        return self.values[self.last]

    def add(self, step: int, value: float) -> None:
        """Add a value; a later value of the same step replaces the earlier."""
        repeated = step in self.values
        self.values[step] = value
        if step > self.last:
            self.before, self.last = self.last, step
        else:
            self.restarts += 1
            if self.before < step < self.last:
                self.before = step
        if repeated:
            self.best = math.nan
            for other in self.values.values():
                self.best = self.better(self.best, other)
        else:
            self.best = self.better(self.best, value)

    def better(self, old: float, new: float) -> float:
        """Return the better of two values, of which NaN is none."""
        if math.isnan(old):
            return new
        if self._maximize:
            return max(old, new)
        return min(old, new)

    def is_first_in_interval(self, warmup: int, interval: int) -> bool:
        """Tell whether the highest step is the first of its interval; they begin after `warmup`."""
        return self.before < (self.last - warmup) // interval * interval + warmup
