"""Pruning rules: the incremental versions of Optuna's pruners."""

from __future__ import annotations

import math
from array import array
from bisect import insort
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.pruners import BasePruner
from optuna.trial import TrialState

from trialbus_services.optimizer.pruning.curve import Curve, format_compared

_INSORT_LIMIT = 32  # more new values than this are sorted together


class Rule(Protocol):
    """A pruning rule, which decides about a trial from the trial's curve and the ended trials."""

    def decide(self, number: int, curve: Curve) -> bool:
        """Return whether a trial is pruned, after a value was added to the curve."""
        ...

    def explain(self, number: int, curve: Curve) -> str:
        """Return what a trial that `decide` just pruned was compared with, the value first."""
        ...

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Add a trial that ended."""
        ...

    def drop_values(self, number: int, curve: Curve) -> list[str]:
        """Drop decisions on values that are no longer in a trial's curve.

        Returns:
            Keys of the system attributes that these decisions added to the trial.
        """
        ...

    def load_attributes(self, number: int, curve: Curve | None, attributes: dict[str, Any]) -> None:
        """Load the system attributes of a trial from the storage.

        Args:
            number: Number of the trial.
            curve: Curve of an open trial: attributes from later steps are left out. None for all.
            attributes: The attributes.
        """
        ...

    def pop_attributes(self, number: int) -> dict[str, Any]:
        """Remove and return the system attributes that decisions added to a trial."""
        ...


class StatelessRule:
    """Base of rules that need neither ended trials nor attributes."""

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Ignore a trial that ended."""

    def drop_values(self, number: int, curve: Curve) -> list[str]:
        """Return no keys."""
        return []

    def load_attributes(self, number: int, curve: Curve | None, attributes: dict[str, Any]) -> None:
        """Ignore the system attributes of a trial."""

    def pop_attributes(self, number: int) -> dict[str, Any]:
        """Return no system attributes."""
        return {}


class NopRule(StatelessRule):
    """Rule of `optuna.pruners.NopPruner`: prune no trial."""

    def decide(self, number: int, curve: Curve) -> bool:
        """Return False."""
        return False

    def explain(self, number: int, curve: Curve) -> str:
        """Return an empty text."""
        return ""


class OptunaRule(StatelessRule):
    """Rule of any other pruner: ask the pruner, which reads the whole study.

    Args:
        ask: Asks the pruner about the trial with a number.
    """

    def __init__(self, ask: Callable[[int], bool]) -> None:
        self._ask = ask

    def decide(self, number: int, curve: Curve) -> bool:
        """Return whether the pruner prunes a trial."""
        return self._ask(number)

    def explain(self, number: int, curve: Curve) -> str:
        """Return the value: what the pruner compared it with is not known."""
        return f"{curve.last_value:g}"


@dataclass(frozen=True)
class ThresholdRule(StatelessRule):
    """Rule of `optuna.pruners.ThresholdPruner`: prune a trial with a value outside a range."""

    lower: float
    upper: float
    warmup: int
    """Step before which no trial is pruned."""
    interval: int
    """Steps between two decisions."""

    def decide(self, number: int, curve: Curve) -> bool:
        """Return whether the newest value is NaN or outside of the range."""
        if curve.last < self.warmup:
            return False
        if not curve.is_first_in_interval(self.warmup, self.interval):
            return False
        value = curve.last_value
        return math.isnan(value) or not self.lower <= value <= self.upper

    def explain(self, number: int, curve: Curve) -> str:
        """Return the value and the limit that the value is beyond."""
        value = curve.last_value
        if value < self.lower:
            return format_compared(value, "< lower", self.lower)
        if value > self.upper:
            return format_compared(value, "> upper", self.upper)
        return "nan is no value"


class PercentileRule(StatelessRule):
    """Rule of `optuna.pruners.PercentilePruner`: prune a trial that is among the worst at a step.

    Args:
        percentile: Percentage of the complete trials that are good enough; 50 for the median.
        startup: Number of complete trials before which no trial is pruned.
        warmup: Step before which no trial is pruned.
        interval: Steps between two decisions.
        at_least: Number of complete trials with a value at the step that a decision needs.
        maximize: Whether higher values are better.
    """

    def __init__(
        self,
        percentile: float,
        startup: int,
        warmup: int,
        interval: int,
        at_least: int,
        *,
        maximize: bool,
    ) -> None:
        self._share = (100 - percentile if maximize else percentile) / 100
        self._name = "median" if percentile == 50 else f"percentile {percentile:g}"
        self._maximize = maximize
        self._startup = startup
        self._warmup = warmup
        self._interval = interval
        self._at_least = at_least
        self._n_complete = 0
        #: Sorted values of complete trials by step, without NaN.
        self._values: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))
        #: Values that are not sorted in yet, by step.
        self._fresh: defaultdict[int, list[float]] = defaultdict(list)
        #: Number of values that are NaN, by step.
        self._n_nan: defaultdict[int, int] = defaultdict(int)

    def decide(self, number: int, curve: Curve) -> bool:
        """Return whether a trial is worse than the percentile at the last step of the curve."""
        step = curve.last
        if self._n_complete == 0 or self._n_complete < self._startup or step < self._warmup:
            return False
        if not curve.is_first_in_interval(self._warmup, self._interval):
            return False
        if math.isnan(curve.best):
            return True
        limit = self._compute_percentile(step)
        return curve.best < limit if self._maximize else curve.best > limit

    def explain(self, number: int, curve: Curve) -> str:
        """Return the trial's best value, and the percentile of the complete trials at the step."""
        if math.isnan(curve.best):
            return "nan is no value"
        step = curve.last
        limit = self._compute_percentile(step)
        n_trials = len(self._values.get(step, ())) + self._n_nan.get(step, 0)
        best = "" if curve.best == curve.last_value else "best "
        sign = "<" if self._maximize else ">"
        compared = format_compared(curve.best, f"{sign} {self._name}", limit)
        return f"{best}{compared} of {n_trials} trials"

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Add the values of a complete trial."""
        if state is not TrialState.COMPLETE:
            return
        self._n_complete += 1
        for step, value in curve.values.items():
            if math.isnan(value):
                self._n_nan[step] += 1
            else:
                self._fresh[step].append(value)

    def _compute_percentile(self, step: int) -> float:
        """Return the percentile at a step, as `numpy.nanpercentile`; NaN without enough values."""
        if step in self._fresh:
            self._sort_in(step, self._fresh.pop(step))
        values = self._values.get(step)
        n = len(values) if values is not None else 0
        if values is None or not n or n + self._n_nan.get(step, 0) < self._at_least:
            return math.nan
        position = (n - 1) * self._share
        below = min(int(position), n - 1)
        fraction = position - below
        low, high = values[below], values[min(below + 1, n - 1)]
        width = high - low
        return high - width * (1 - fraction) if fraction >= 0.5 else low + width * fraction

    def _sort_in(self, step: int, fresh: list[float]) -> None:
        values = self._values[step]
        if len(fresh) < _INSORT_LIMIT:
            for value in fresh:
                insort(values, value)
        else:
            self._values[step] = array("d", sorted([*values, *fresh]))


class PatientRule:
    """Rule of `optuna.pruners.PatientPruner`: prune a trial that has stopped improving.

    Args:
        wrapped: Rule that decides about a trial without improvement; None prunes at once.
        patience: Number of steps without improvement.
        min_delta: Smallest improvement that counts.
        maximize: Whether higher values are better.
    """

    def __init__(
        self, wrapped: Rule | None, patience: int, min_delta: float, *, maximize: bool
    ) -> None:
        self._wrapped = wrapped
        self._patience = patience
        self._min_delta = min_delta
        self._maximize = maximize
        self._windows: dict[int, _Window] = {}

    def decide(self, number: int, curve: Curve) -> bool:
        """Compare the best of the newest values with the best earlier value."""
        window = self._windows.get(number)
        if window is not None and window.is_one_behind(curve):
            steps = [curve.last]
        else:
            window = self._windows[number] = _Window(curve)
            steps = sorted(curve.values)
        for step in steps:
            window.n_values += 1
            window.newest.append(curve.values[step])
            if len(window.newest) > self._patience + 1:
                window.best = curve.choose_better(window.best, window.newest.popleft())
                window.has_earlier = True
        if not window.has_earlier:
            return False
        newest = math.nan
        for value in window.newest:
            newest = curve.choose_better(newest, value)
        if self._maximize:
            is_stuck = window.best - self._min_delta > newest
        else:
            is_stuck = window.best + self._min_delta < newest
        return is_stuck and (self._wrapped is None or self._wrapped.decide(number, curve))

    def explain(self, number: int, curve: Curve) -> str:
        """Return the value, the best value before it stopped improving, and the wrapped rule's."""
        window = self._windows[number]
        worse = "<" if self._maximize else ">"
        compared = format_compared(curve.last_value, worse, window.best)
        text = f"{compared}, the best of earlier steps (patience {self._patience})"
        wrapped = "" if self._wrapped is None else self._wrapped.explain(number, curve)
        return f"{text}; {wrapped}" if wrapped else text

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Forget the window of a trial that ended, and add the trial to the wrapped rule."""
        self._windows.pop(number, None)
        if self._wrapped is not None:
            self._wrapped.finish(number, curve, state)

    def drop_values(self, number: int, curve: Curve) -> list[str]:
        """Drop decisions of the wrapped rule."""
        return self._wrapped.drop_values(number, curve) if self._wrapped is not None else []

    def load_attributes(self, number: int, curve: Curve | None, attributes: dict[str, Any]) -> None:
        """Load the system attributes of a trial into the wrapped rule."""
        if self._wrapped is not None:
            self._wrapped.load_attributes(number, curve, attributes)

    def pop_attributes(self, number: int) -> dict[str, Any]:
        """Return the system attributes that the wrapped rule added to a trial."""
        return self._wrapped.pop_attributes(number) if self._wrapped is not None else {}


class _Window:
    """The newest values of a curve, and the best earlier value."""

    def __init__(self, curve: Curve) -> None:
        self._curve = curve
        self._n_out_of_order = curve.n_out_of_order
        self.n_values = 0
        self.newest: deque[float] = deque()
        self.best = math.nan
        self.has_earlier = False

    def is_one_behind(self, curve: Curve) -> bool:
        """Return whether only the last value of a curve is missing in the window."""
        return (
            self._curve is curve
            and self._n_out_of_order == curve.n_out_of_order
            and self.n_values == len(curve.values) - 1
        )


def get_arguments(pruner: BasePruner, *names: str) -> list[Any]:
    """Return arguments of a pruner from the private attributes of Optuna's class."""
    return [getattr(pruner, f"_{name}") for name in names]
