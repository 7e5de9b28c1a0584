"""Conditional params: which of a search space are in a trial, by the values of others.

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


def find_unmet_condition(param: Param, values: Mapping[str, Any]) -> str | None:
    """Return the condition on a param that a trial with these values does not meet, if any.

    Example:
        >>> param = FloatParam(low=0, high=1, when={"kind": "mlp"})
        >>> find_unmet_condition(param, {"kind": "transformer"})
        'kind=mlp'
    """
    for name in param.when:
        wanted = _values(param, name)
        if name not in values or not any(_same(values[name], one) for one in wanted):
            return f"{name}={' or '.join(map(str, wanted))}"
    return None


def order_by_conditions(space: Mapping[str, Param]) -> dict[str, Param]:
    """Return a search space with every param after those that its conditions name.

    Otherwise its order is kept.

    Raises:
        ValueError: A condition names no param, a value that the param never has, or leads back to
            where it came from; the message begins with the condition's path below `study.`.
    """
    found: dict[str, Param] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise ValueError(
                f"params.{path[-1]}.when.{name} makes a circle: {circle} (expected a param that "
                "does not depend on this one)"
            )
        if name in found:
            return
        param = space[name]
        for other in param.when:
            _check(f"params.{name}.when.{other}", param, other, space)
            visit(other, (*path, name))
        found[name] = param

    for name in space:
        visit(name, ())
    return found


def _check(key: str, param: Param, name: str, space: Mapping[str, Param]) -> None:
    if name not in space:
        raise ValueError(f"{key} is no param{format_expected(name, space)}")
    other = space[name]
    wanted = _values(param, name)
    if not wanted:
        raise ValueError(f"{key} is empty (expected a value of {name}, or a list of some)")
    if isinstance(other, FloatParam) and other.step is None and other.low < other.high:
        raise ValueError(
            f"{key}: {name} is a float, which is never exactly {wanted[0]!r} (expected a "
            "categorical param, an int, or a float with a step)"
        )
    for value in wanted:
        if not other.contains(value):
            choices = isinstance(other, CategoricalParam) and ", ".join(map(repr, other.choices))
            raise ValueError(
                f"{key} {value!r} is no value of {name} (expected one of {choices or other})"
            )


def _values(param: Param, name: str) -> tuple[Choice, ...]:
    wanted = param.when[name]
    return wanted if isinstance(wanted, tuple) else (wanted,)


def _same(value: Choice, wanted: Choice) -> bool:
    if isinstance(value, float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, abs_tol=1e-12)
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
