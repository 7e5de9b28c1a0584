"""Pruning rules: each decides about a trial from its curve and the ended trials."""

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

from trialbus_services.optimizer.pruning.curve import Curve

_FEW = 32  # values that are put in their places one by one


class Rule(Protocol):
    """The incremental version of one Optuna pruner."""

    def decide(self, number: int, curve: Curve) -> bool:
        """Return whether a trial is to be pruned, after its curve grew."""
        ...

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Note that a trial ended."""
        ...

    def recall(self, number: int, attributes: dict[str, Any]) -> None:
        """Load the system attributes of a trial from before a restart."""
        ...

    def attributes(self, number: int) -> dict[str, Any]:
        """Return, once, the system attributes that the decision left on a trial."""
        ...


class Stateless:
    """The base of rules that look at one trial only."""

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Keep nothing."""

    def recall(self, number: int, attributes: dict[str, Any]) -> None:
        """Keep nothing."""

    def attributes(self, number: int) -> dict[str, Any]:
        """Leave nothing."""
        return {}


class Never(Stateless):
    """Prunes nothing. Source: `optuna.pruners.NopPruner`."""

    def decide(self, number: int, curve: Curve) -> bool:
        """Go on."""
        return False


class OptunaRule(Stateless):
    """Asks a pruner of Optuna's interface, which sees the whole study. Source: `BasePruner`."""

    def __init__(self, ask: Callable[[int], bool]) -> None:
        self._ask = ask

    def decide(self, number: int, curve: Curve) -> bool:
        """Ask the pruner."""
        return self._ask(number)


@dataclass(frozen=True)
class Threshold(Stateless):
    """Prunes what leaves a range. Source: `optuna.pruners.ThresholdPruner`."""

    lower: float
    upper: float
    warmup: int
    interval: int

    def decide(self, number: int, curve: Curve) -> bool:
        """Look at the newest value."""
        if curve.last < self.warmup:
            return False
        if not curve.is_first_in_interval(self.warmup, self.interval):
            return False
        value = curve.last_value
        return math.isnan(value) or not self.lower <= value <= self.upper


class Percentile(Stateless):
    """Prunes what is among the worst at its step. Source: `optuna.pruners.PercentilePruner`.

    Args:
        percentile: Of the completed trials' values at a step, from the best; 50 for the median.
        startup: Completed trials before anything is pruned.
        warmup: Steps before anything of a trial is.
        interval: Steps between two looks.
        at_least: Completed trials that have a value at the step, for a decision.
        maximize: Whether more is better.
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
        self._maximize = maximize
        self._startup = startup
        self._warmup = warmup
        self._interval = interval
        self._at_least = at_least
        self._n_complete = 0
        #: Values of completed trials by step, sorted, without NaN; those that were not looked at
        #: yet; and how many are NaN.
        self._values: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))
        self._fresh: defaultdict[int, list[float]] = defaultdict(list)
        self._n_nan: defaultdict[int, int] = defaultdict(int)

    def decide(self, number: int, curve: Curve) -> bool:
        """Compare the trial's best value with the percentile at its last step."""
        step = curve.last
        if self._n_complete == 0 or self._n_complete < self._startup or step < self._warmup:
            return False
        if not curve.is_first_in_interval(self._warmup, self._interval):
            return False
        if math.isnan(curve.best):
            return True
        limit = self._limit(step)
        return curve.best < limit if self._maximize else curve.best > limit

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Keep the curve of a completed trial."""
        if state is not TrialState.COMPLETE:
            return
        self._n_complete += 1
        for step, value in curve.values.items():
            if math.isnan(value):
                self._n_nan[step] += 1
            else:
                self._fresh[step].append(value)

    def _limit(self, step: int) -> float:
        """Return the percentile at a step as `numpy.nanpercentile` does, NaN if there is none."""
        if step in self._fresh:
            self._sort_in(step, self._fresh.pop(step))
        values = self._values.get(step)
        n = len(values) if values is not None else 0
        if values is None or not n or n + self._n_nan.get(step, 0) < self._at_least:
            return math.nan
        place = (n - 1) * self._share
        below = min(int(place), n - 1)
        part = place - below
        low, high = values[below], values[min(below + 1, n - 1)]
        width = high - low
        return high - width * (1 - part) if part >= 0.5 else low + width * part

    def _sort_in(self, step: int, fresh: list[float]) -> None:
        values = self._values[step]
        if len(fresh) < _FEW:
            for value in fresh:
                insort(values, value)
        else:
            self._values[step] = array("d", sorted([*values, *fresh]))


class Patient:
    """Lets another rule decide when a trial stopped improving.

    Args:
        wrapped: The other rule; None prunes at once.
        patience: Steps without improvement.
        min_delta: Smallest improvement that counts.
        maximize: Whether more is better.

    Source:
        `optuna.pruners.PatientPruner`.
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
        """Compare the best of the newest steps with the best before them."""
        window = self._windows.get(number)
        if window is not None and window.is_one_behind(curve):
            steps = [curve.last]
        else:
            window = self._windows[number] = _Window(curve)
            steps = sorted(curve.values)
        for step in steps:
            window.seen += 1
            window.newest.append(curve.values[step])
            if len(window.newest) > self._patience + 1:
                window.best = curve.better(window.best, window.newest.popleft())
                window.left = True
        if not window.left:
            return False
        newest = math.nan
        for value in window.newest:
            newest = curve.better(newest, value)
        if self._maximize:
            stuck = window.best - self._min_delta > newest
        else:
            stuck = window.best + self._min_delta < newest
        return stuck and (self._wrapped is None or self._wrapped.decide(number, curve))

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Let the other rule know."""
        self._windows.pop(number, None)
        if self._wrapped is not None:
            self._wrapped.finish(number, curve, state)

    def recall(self, number: int, attributes: dict[str, Any]) -> None:
        """Let the other rule know."""
        if self._wrapped is not None:
            self._wrapped.recall(number, attributes)

    def attributes(self, number: int) -> dict[str, Any]:
        """Return what the other rule left."""
        return self._wrapped.attributes(number) if self._wrapped is not None else {}


class _Window:
    """The newest values of a curve, and the best of those before."""

    def __init__(self, curve: Curve) -> None:
        self._of = curve
        self._restarts = curve.restarts
        self.seen = 0
        self.newest: deque[float] = deque()
        self.best = math.nan
        self.left = False  # whether a value has left the newest

    def is_one_behind(self, curve: Curve) -> bool:
        """Tell whether only the last value of a curve is new to this."""
        return (
            self._of is curve
            and self._restarts == curve.restarts
            and self.seen == len(curve.values) - 1
        )


def get_arguments(pruner: BasePruner, *names: str) -> list[Any]:
    """Return arguments that a pruner of Optuna was made with; it keeps them under private names."""
    return [getattr(pruner, f"_{name}") for name in names]
