"""How a curve of intermediate values becomes one objective value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TypeAlias

from trialbus.errors import SpecError
from trialbus.spec import Direction, Objective

#: Values by step.
Curve: TypeAlias = Mapping[int, float]

_FORM = re.compile(r"(?P<name>\w+)(?:\((?P<argument>[^()]*)\))?")
_FORMS = "last, best, mean_last(k), ema(alpha), at_step(n)"


def value_of(curve: Curve, objective: Objective) -> float | None:
    """Return the objective value of a curve; None if the curve does not have it.

    Args:
        curve: Values of the objective's metric by step.
        objective: Says how they are aggregated, in the order of their steps.

    Example:
        >>> value_of({0: 0.5, 1: 0.9, 2: 0.8}, Objective(metric="accuracy", aggregate="best"))
        0.9
    """
    rule = aggregation(objective.aggregate, objective.direction)
    return rule(dict(sorted(curve.items()))) if curve else None


def aggregation(text: str, direction: Direction) -> Callable[[Curve], float | None]:
    """Return the function that `text` names.

    Raises:
        SpecError: It names none, or its argument is out of range.
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
            raise SpecError("study.objective.aggregate", f"{text!r} is not one of {_FORMS}")


def _is_weight(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False
