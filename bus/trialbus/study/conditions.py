"""Conditional params: params that are in a trial only with certain values of other params.

```yaml
kind: {type: categorical, choices: [mlp, transformer]}
heads: {type: int, low: 1, high: 8, when: {kind: transformer}}
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trialbus.study.search_space import CategoricalParam, Choice, FloatParam, Param
from trialbus.study.validation import format_expected
from trialbus.study.values import is_same


def find_unmet_condition(param: Param, values: Mapping[str, Any]) -> str | None:
    """Return the first condition of a param that the values do not meet, or None.

    Example:
        >>> param = FloatParam(low=0, high=1, when={"kind": "mlp"})
        >>> find_unmet_condition(param, {"kind": "transformer"})
        'kind=mlp'
    """
    for name in param.when:
        allowed = _get_allowed_values(param, name)
        if name not in values or not any(_is_equal(values[name], value) for value in allowed):
            return f"{name}={' or '.join(map(str, allowed))}"
    return None


def order_by_conditions(space: Mapping[str, Param]) -> dict[str, Param]:
    """Sort a search space: every param after the params on which the param depends.

    Otherwise the order of the search space is kept.

    Raises:
        ValueError: A condition names no param, a value that the param never has, or is part of a
            cycle; the message begins with the condition's path below `study.`.
    """
    ordered: dict[str, Param] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise ValueError(
                f"params.{path[-1]}.when.{name} forms a cycle: {cycle} (expected a param that "
                f"does not depend on {path[-1]})"
            )
        if name in ordered:
            return
        param = space[name]
        for other in param.when:
            _check_condition(f"params.{name}.when.{other}", param, other, space)
            visit(other, (*path, name))
        ordered[name] = param

    for name in space:
        visit(name, ())
    return ordered


def _check_condition(key: str, param: Param, name: str, space: Mapping[str, Param]) -> None:
    if name not in space:
        raise ValueError(f"{key} is not a param{format_expected(name, space)}")
    other = space[name]
    allowed = _get_allowed_values(param, name)
    if not allowed:
        raise ValueError(f"{key} is empty (expected a value of {name}, or a list of values)")
    if isinstance(other, FloatParam) and other.step is None and other.low < other.high:
        raise ValueError(
            f"{key}: {name} is a float, which is never exactly {allowed[0]!r} (expected a "
            "categorical param, an int, or a float with a step)"
        )
    for value in allowed:
        is_label = not isinstance(other, CategoricalParam) or any(
            _is_equal(label, value) for label in other.labels
        )
        if not (other.contains(value) and is_label):
            choices = isinstance(other, CategoricalParam) and ", ".join(map(repr, other.labels))
            raise ValueError(
                f"{key} {value!r} is not a value of {name} (expected one of {choices or other})"
            )


def _get_allowed_values(param: Param, name: str) -> tuple[Choice, ...]:
    allowed = param.when[name]
    return allowed if isinstance(allowed, tuple) else (allowed,)


def _is_equal(value: Choice, allowed: Choice) -> bool:
    if is_same(value, allowed):
        return True
    if isinstance(value, float) and isinstance(allowed, int | float):
        return math.isclose(value, allowed, abs_tol=1e-12)
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)
