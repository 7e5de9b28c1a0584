"""Curve: the reported values of a trial, with the best value and the last two steps."""

from __future__ import annotations

import math


class Curve:
    """Values by step; adding a value at the end takes the same time at any length.

    Args:
        maximize: Whether higher values are better.
    """

    __slots__ = ("_maximize", "best", "last", "n_out_of_order", "previous", "values")

    def __init__(self, *, maximize: bool) -> None:
        self._maximize = maximize
        self.values: dict[int, float] = {}
        #: Highest step; -1 for an empty curve.
        self.last = -1
        #: Second highest step; -1 for a curve without a second value.
        self.previous = -1
        #: Best value; NaN if all values are NaN.
        self.best = math.nan
        #: Number of values that did not come in the order of their steps.
        self.n_out_of_order = 0

    @classmethod
    def of_ended_trial(cls, values: dict[int, float]) -> Curve:
        """Return the curve of a trial that has ended, without the best value."""
        curve = cls(maximize=False)
        curve.values = values
        curve.last = max(values, default=-1)
        return curve

    @property
    def last_value(self) -> float:
        """Value of the highest step."""
        return self.values[self.last]

    def add(self, step: int, value: float) -> None:
        """Add a value; a later value of the same step replaces the earlier."""
        is_replaced = step in self.values
        self.values[step] = value
        if step > self.last:
            self.previous, self.last = self.last, step
        else:
            self.n_out_of_order += 1
            if self.previous < step < self.last:
                self.previous = step
        if is_replaced:
            self.best = math.nan
            for other in self.values.values():
                self.best = self.choose_better(self.best, other)
        else:
            self.best = self.choose_better(self.best, value)

    def choose_better(self, old: float, new: float) -> float:
        """Return the better of two values; NaN counts as no value."""
        if math.isnan(old):
            return new
        if self._maximize:
            return max(old, new)
        return min(old, new)

    def is_first_in_interval(self, warmup: int, interval: int) -> bool:
        """Return whether no earlier step is in the interval of the highest step.

        Args:
            warmup: Step at which the first interval begins.
            interval: Length of each interval, in steps.
        """
        return self.previous < (self.last - warmup) // interval * interval + warmup


def format_compared(value: float, sign: str, limit: float) -> str:
    """Format a comparison, with all digits where six digits would show equal numbers.

    Example:
        >>> format_compared(0.5, "<", 0.75), format_compared(1 / 3, ">", 0.333333)
        ('0.5 < 0.75', '0.3333333333333333 > 0.333333')
    """
    texts = f"{value:g}", f"{limit:g}"
    if texts[0] == texts[1] and value != limit:
        texts = repr(float(value)), repr(float(limit))
    return f"{texts[0]} {sign} {texts[1]}"
