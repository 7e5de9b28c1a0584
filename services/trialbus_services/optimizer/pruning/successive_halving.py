"""Rules of successive halving, alone and in the brackets of Hyperband."""

from __future__ import annotations

import binascii
import math
from bisect import insort
from collections import defaultdict
from typing import Any, Literal

from optuna.trial import TrialState

from trialbus_services.optimizer.pruning.curve import Curve, format_compared

_KEY = "completed_rung_"


class SuccessiveHalvingRule:
    """Rule of `optuna.pruners.SuccessiveHalvingPruner`: promote the best trials of each rung.

    Args:
        min_resource: Steps before the first rung; None estimates the steps from complete trials.
        factor: Reduction factor: one in this many trials is promoted.
        min_rate: Number of rungs that are left out at the beginning.
        bootstrap: Number of trials that must reach a rung before a trial is promoted.
        maximize: Whether higher values are better.

    Source:
        Li et al., A System for Massively Parallel
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
        self._max_step: int | None = None
        #: Sorted values by rung.
        self._rungs: defaultdict[int, list[float]] = defaultdict(list)
        #: Next rung of each trial.
        self._next: defaultdict[int, int] = defaultdict(int)
        #: Value of each trial in the rungs that the trial has entered.
        self._entered: defaultdict[int, list[float]] = defaultdict(list)
        #: System attributes by trial, until `pop_attributes`.
        self._attributes: dict[int, dict[str, Any]] = {}

    def decide(self, number: int, curve: Curve) -> bool:
        """Add a trial to every rung that the trial has reached; prune a trial without promotion."""
        value = curve.last_value
        while True:
            rung = self._next[number]
            limit = self._compute_step(rung)
            if limit is None or curve.last < limit:
                return False
            if math.isnan(value):
                return True
            self._enter(number, rung, value)
            self._attributes.setdefault(number, {})[f"{_KEY}{rung}"] = value
            if not self._is_promoted(value, self._rungs[rung]):
                return True

    def explain(self, number: int, curve: Curve) -> str:
        """Return the value, and the worst value of the rung that is promoted."""
        value = curve.last_value
        if math.isnan(value):
            return "nan is no value"
        index = self._next[number] - 1
        rung = self._rungs[index]
        if len(rung) <= self._bootstrap:
            return f"{value:g} is among the first {self._bootstrap} trials of rung {index}"
        n_promoted = self._count_better(rung) + 1
        limit = rung[-n_promoted] if self._maximize else rung[n_promoted - 1]
        sign = "<" if self._maximize else ">"
        best = f"best {n_promoted} of {len(rung)} trials in rung {index}"
        return f"{format_compared(value, sign, limit)}, the limit of the {best}"

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Update the highest step of complete trials."""
        if state is TrialState.COMPLETE and curve.last >= 0:
            self._max_step = max(self._max_step or 0, curve.last)

    def drop_values(self, number: int, curve: Curve) -> list[str]:
        """Remove a trial from the rungs beyond the last step of the trial's curve."""
        keys: list[str] = []
        while (rung := self._next[number] - 1) >= 0:
            limit = self._compute_step(rung)
            if limit is None or limit <= curve.last:
                break
            self._rungs[rung].remove(self._entered[number].pop())
            self._next[number] = rung
            self._attributes.get(number, {}).pop(f"{_KEY}{rung}", None)
            keys.append(f"{_KEY}{rung}")
        return keys

    def load_attributes(self, number: int, curve: Curve | None, attributes: dict[str, Any]) -> None:
        """Add a trial to the rungs in the trial's system attributes."""
        while (key := f"{_KEY}{(rung := self._next[number])}") in attributes:
            limit = self._compute_step(rung)
            if curve is not None and (limit is None or limit > curve.last):
                break
            self._enter(number, rung, attributes[key])

    def pop_attributes(self, number: int) -> dict[str, Any]:
        """Return the rungs that a trial has reached since the last call, as system attributes."""
        return self._attributes.pop(number, {})

    def _compute_step(self, rung: int) -> int | None:
        """Return the step at which trials enter a rung; None before a trial is complete."""
        if self._min_resource is None:
            if self._max_step is None:
                return None
            self._min_resource = max(self._max_step // 100, 1)
        step: int = self._min_resource * self._factor ** (self._min_rate + rung)
        return step

    def _enter(self, number: int, rung: int, value: float) -> None:
        insort(self._rungs[rung], value)
        self._entered[number].append(value)
        self._next[number] = rung + 1

    def _is_promoted(self, value: float, rung: list[float]) -> bool:
        if len(rung) <= self._bootstrap:
            return False
        n_better = self._count_better(rung)
        return value >= rung[-(n_better + 1)] if self._maximize else value <= rung[n_better]

    def _count_better(self, rung: list[float]) -> int:
        """Return how many trials of a rung may be better than one that is promoted."""
        return max(len(rung) // self._factor - 1, 0)


class HyperbandRule:
    """Rule of `optuna.pruners.HyperbandPruner`: distribute trials over brackets of halving.

    Args:
        study: Name of the study; name and trial number determine the bracket.
        min_resource: Steps before the first rung of the first bracket.
        max_resource: Largest number of steps; `auto` takes the steps of the first complete trials.
        factor: Reduction factor of every bracket.
        bootstrap: As in `SuccessiveHalvingRule`.
        maximize: Whether higher values are better.

    Source:
        Li et al., Hyperband (2018).
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
        self._brackets: list[SuccessiveHalvingRule] = []
        self._budgets: list[int] = []
        self._max_step: int | None = None
        #: System attributes by trial, which wait for the brackets.
        self._loaded: list[tuple[int, Curve | None, dict[str, Any]]] = []

    def decide(self, number: int, curve: Curve) -> bool:
        """Return the decision of a trial's bracket; False until the brackets are known."""
        if not self._brackets and not self._build_brackets():
            return False
        return self._find_bracket(number).decide(number, curve)

    def explain(self, number: int, curve: Curve) -> str:
        """Return what the trial's bracket compared the value with, and the bracket."""
        bracket = self._find_bracket(number)
        return f"{bracket.explain(number, curve)} of bracket {self._brackets.index(bracket)}"

    def finish(self, number: int, curve: Curve, state: TrialState) -> None:
        """Update the highest step of complete trials, until the brackets are known."""
        if self._brackets or state is not TrialState.COMPLETE or curve.last < 0:
            return
        self._max_step = max(self._max_step or 0, curve.last)

    def drop_values(self, number: int, curve: Curve) -> list[str]:
        """Remove a trial from the rungs beyond the last step of the trial's curve."""
        if self._brackets or self._build_brackets():
            return self._find_bracket(number).drop_values(number, curve)
        # What was loaded counts once the brackets are known: as far as this curve goes.
        self._loaded = [
            (other, curve if other == number else known, attributes)
            for other, known, attributes in self._loaded
        ]
        return []

    def load_attributes(self, number: int, curve: Curve | None, attributes: dict[str, Any]) -> None:
        """Keep the system attributes of a trial until the brackets are known."""
        self._loaded.append((number, curve, attributes))

    def pop_attributes(self, number: int) -> dict[str, Any]:
        """Return the rungs that a trial has reached since the last call, as system attributes."""
        return self._find_bracket(number).pop_attributes(number) if self._brackets else {}

    def _build_brackets(self) -> bool:
        """Build the brackets.

        Returns:
            False while the largest number of steps is unknown, and for good where the first
            complete trials were shorter than the first bracket's first rung: as in Optuna, no trial
            is pruned then.
        """
        if self._max_resource is None:
            if self._max_step is None:
                return False
            self._max_resource = self._max_step + 1
        n = math.floor(math.log(self._max_resource / self._min_resource, self._factor)) + 1
        for i in range(n):
            rate = n - 1 - i
            self._budgets.append(math.ceil(n * self._factor**rate / (rate + 1)))
            self._brackets.append(
                SuccessiveHalvingRule(
                    self._min_resource,
                    self._factor,
                    i,
                    self._bootstrap,
                    maximize=self._maximize,
                )
            )
        if not self._brackets:
            return False
        for number, curve, attributes in self._loaded:
            self._find_bracket(number).load_attributes(number, curve, attributes)
        self._loaded.clear()
        return True

    def _find_bracket(self, number: int) -> SuccessiveHalvingRule:
        remainder = binascii.crc32(f"{self._study}_{number}".encode()) % sum(self._budgets)
        for bracket, budget in zip(self._brackets, self._budgets, strict=True):
            remainder -= budget
            if remainder < 0:
                return bracket
        raise AssertionError(remainder)
