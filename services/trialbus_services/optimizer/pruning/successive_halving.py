"""Asynchronous successive halving, alone and in Hyperband's brackets."""

from __future__ import annotations

import binascii
import math
from bisect import insort
from collections import defaultdict
from typing import Any, Literal

from optuna.trial import TrialState

from trialbus_services.optimizer.pruning.curve import Curve

_KEY = "completed_rung_"


class SuccessiveHalving:
    """Lets the best of each rung go on to the next.

    Args:
        min_resource: Steps before the first rung; None estimates them from completed trials.
        factor: One of so many goes on.
        min_rate: Rungs that are left out at the beginning.
        bootstrap: Trials that reach a rung before one of them may go on.
        maximize: Whether more is better.

    Source:
        `optuna.pruners.SuccessiveHalvingPruner`; Li et al., A System for Massively Parallel
        Hyperparameter Tuning (2020).
    """

    def __init__(
        self,
        min_resource: int | None,
        factor: int,
        min_rate: int,
        bootstrap: int,
        *,
        maximize: bool,
    ) -> None:
        self._min_resource = min_resource
        self._factor = factor
        self._min_rate = min_rate
        self._bootstrap = bootstrap
        self._maximize = maximize
        self._longest: int | None = None
        #: Values by rung, sorted, and the rung each trial stands before.
        self._rungs: defaultdict[int, list[float]] = defaultdict(list)
        self._next: defaultdict[int, int] = defaultdict(int)
        self._left: dict[int, dict[str, Any]] = {}

    def decide(self, number: int, curve: Curve) -> bool:
        """Take the trial past every rung it has reached, or prune it there."""
        value = curve.last_value
        while True:
            if self._min_resource is None:
                if self._longest is None:
                    return False
                self._min_resource = max(self._longest // 100, 1)
            rung = self._next[number]
            if curve.last < self._min_resource * self._factor ** (self._min_rate + rung):
                return False
            if math.isnan(value):
                return True
            self._enter(number, rung, value)
            self._left.setdefault(number, {})[f"{_KEY}{rung}"] = value
            if not self._is_promoted(value, self._rungs[rung]):
                return True

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Keep how long completed trials are."""
        if state is TrialState.COMPLETE and curve.last >= 0:
            self._longest = max(self._longest or 0, curve.last)

    def recall(self, number: int, attributes: dict[str, Any]) -> None:
        """Put a trial on the rungs it had reached."""
        while (key := f"{_KEY}{self._next[number]}") in attributes:
            self._enter(number, self._next[number], attributes[key])

    def attributes(self, number: int) -> dict[str, Any]:
        """Return the rungs the trial has reached since."""
        return self._left.pop(number, {})

    def _enter(self, number: int, rung: int, value: float) -> None:
        insort(self._rungs[rung], value)
        self._next[number] = rung + 1

    def _is_promoted(self, value: float, rung: list[float]) -> bool:
        if len(rung) <= self._bootstrap:
            return False
        place = max(len(rung) // self._factor - 1, 0)
        return value >= rung[-(place + 1)] if self._maximize else value <= rung[place]


class Hyperband:
    """Deals trials into brackets that halve at different rates.

    Args:
        study: Name of the study; with a trial's number it decides the bracket.
        min_resource: Steps before the first rung of the first bracket.
        max_resource: Largest number of steps; `auto` takes it from the first completed trials.
        factor: One of so many goes on.
        bootstrap: See `Halving`.
        maximize: Whether more is better.

    Source:
        `optuna.pruners.HyperbandPruner`; Li et al., Hyperband (2018).
    """

    def __init__(
        self,
        study: str,
        min_resource: int,
        max_resource: int | Literal["auto"],
        factor: int,
        bootstrap: int,
        *,
        maximize: bool,
    ) -> None:
        self._study = study
        self._min_resource = min_resource
        self._max_resource = None if max_resource == "auto" else max_resource
        self._factor = factor
        self._bootstrap = bootstrap
        self._maximize = maximize
        self._brackets: list[SuccessiveHalving] = []
        self._budgets: list[int] = []
        self._longest: int | None = None
        self._recalled: list[tuple[int, dict[str, Any]]] = []

    def decide(self, number: int, curve: Curve) -> bool:
        """Let the trial's bracket decide, once there are any."""
        if not self._brackets and not self._begin():
            return False
        return self._bracket(number).decide(number, curve)

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Take the longest of the first completed trials for the largest number of steps."""
        if self._brackets or state is not TrialState.COMPLETE or curve.last < 0:
            return
        self._longest = max(self._longest or 0, curve.last)

    def recall(self, number: int, attributes: dict[str, Any]) -> None:
        """Keep what a trial had reached until there are brackets."""
        self._recalled.append((number, attributes))

    def attributes(self, number: int) -> dict[str, Any]:
        """Return the rungs the trial has reached since."""
        return self._bracket(number).attributes(number) if self._brackets else {}

    def _begin(self) -> bool:
        if self._max_resource is None:
            if self._longest is None:
                return False
            self._max_resource = self._longest + 1
        n = math.floor(math.log(self._max_resource / self._min_resource, self._factor)) + 1
        for i in range(n):
            rate = n - 1 - i
            self._budgets.append(math.ceil(n * self._factor**rate / (rate + 1)))
            self._brackets.append(
                SuccessiveHalving(
                    self._min_resource,
                    self._factor,
                    i,
                    self._bootstrap,
                    maximize=self._maximize,
                )
            )
        for number, attributes in self._recalled:
            self._bracket(number).recall(number, attributes)
        self._recalled.clear()
        return True

    def _bracket(self, number: int) -> SuccessiveHalving:
        place = binascii.crc32(f"{self._study}_{number}".encode()) % sum(self._budgets)
        for bracket, budget in zip(self._brackets, self._budgets, strict=True):
            place -= budget
            if place < 0:
                return bracket
        raise AssertionError(place)
