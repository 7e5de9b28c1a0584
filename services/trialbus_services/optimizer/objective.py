"""Objective values, computed from curves of intermediate values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TypeAlias

from trialbus.errors import SpecError
from trialbus.study.spec import Direction, Objective
from trialbus.study.validation import find_nearest

#: Values by step.
Curve: TypeAlias = Mapping[int, float]

_FORM = re.compile(r"(?P<name>\w+)(?:\((?P<argument>[^()]*)\))?")
_EXPECTED = {
    "last": "last",
    "best": "best",
    "mean_last": "mean_last(k) with k >= 1",
    "ema": "ema(alpha) with 0 < alpha <= 1",
    "at_step": "at_step(n) with n >= 0",
}


class MissingValueError(ValueError):
    """The reports of a trial lack a value that an objective or a constraint needs."""


def compute_objective(curve: Curve, objective: Objective) -> float | None:
    """Return the objective value of a curve; None if the curve is too short for a value.

    Args:
        curve: Values of the objective's metric by step.
        objective: The objective, with the rule by which the values are aggregated.

    Example:
        >>> best = Objective(metric="accuracy", aggregate="best")
        >>> compute_objective({0: 0.5, 1: 0.9, 2: 0.8}, best)
        0.9
    """
    aggregate = parse_aggregation(objective.aggregate, objective.direction)
    return aggregate(dict(sorted(curve.items()))) if curve else None


def parse_aggregation(
    text: str, direction: Direction, key: str = "study.objective"
) -> Callable[[Curve], float | None]:
    """Return the function of an aggregation, from a curve in the order of steps to a value.

    Args:
        text: Name of the aggregation, with its argument in parentheses: `mean_last(3)`.
        direction: Whether higher or lower values are better.
        key: Key of the objective, for the error.

    Raises:
        SpecError: No aggregation has the name, or the argument is out of range.
    """
    match = _FORM.fullmatch(text.replace(" ", ""))
    name, argument = (match["name"], match["argument"]) if match else (text, None)
    match name, argument:
        case "last", None:
            return lambda curve: list(curve.values())[-1]
        case "best", None:
            best = max if direction == "maximize" else min
            return lambda curve: best(
                (v for v in curve.values() if not math.isnan(v)), default=float("nan")
            )
        case "mean_last", str() if argument.isdigit() and int(argument) > 0:
            k = int(argument)
            return lambda curve: sum(list(curve.values())[-k:]) / min(k, len(curve))
        case "ema", str() if _is_weight(argument):
            alpha = float(argument)
            return lambda curve: reduce(lambda old, new: old + alpha * (new - old), curve.values())
        case "at_step", str() if argument.isdigit():
            step = int(argument)
            return lambda curve: curve.get(step)
        case _:
            near = find_nearest(name, _EXPECTED)
            hint = f"; did you mean {_EXPECTED[near]}?" if near else ""
            raise SpecError(
                f"{key}.aggregate",
                f"{text!r} is not one of {', '.join(_EXPECTED.values())}{hint}",
            )


def _is_weight(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False
