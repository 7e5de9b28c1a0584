"""Search spaces in the forms that people write them in, made into the one that `load_spec` takes.

A param is a mapping (`{type: float, low: 0, high: 1, log: false, step: null}`), also with the types
`float_log` and `int_log`, or a text in the grammar of Hydra's sweeps:

| text | param |
|---|---|
| `interval(0, 1)` | float |
| `int(interval(1, 8))` | int, both ends included |
| `tag(log, interval(1e-5, 1e-1))` | float, sampled by its logarithm |
| `range(0, 1, 0.25)` | 0, 0.25, 0.5, 0.75: as in Hydra and Python the stop is not among them |
| `choice(adam, sgd)` or `adam, sgd` | categorical |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from trialbus.errors import SpecError
from trialbus.study.spec import is_mapping

_LOG = {"float_log": "float", "int_log": "int"}
_FORMS = "interval(low, high), range(start, stop, step), choice(a, b) or a mapping"


def explicit(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search space with every param as a mapping.

    Raises:
        SpecError: A text is no sweep, or one that does not describe a param; names it.
    """
    return {name: _explicit(f"study.params.{name}", param) for name, param in params.items()}


def listed(parameters: Any, key: str = "study.parameters") -> dict[str, Any]:
    """Return a list of parameters, each with its name, as a search space that `load_spec` takes.

    An entry is `{name: lr, type: float_log, low: 1e-5, high: 0.1}`. Keys that are null are left
    out, as programs write them that know all of a parameter's keys at once.

    Args:
        parameters: The list.
        key: Where it comes from, for errors.

    Raises:
        SpecError: It is no list of named mappings, or two have the same name.

    Example:
        >>> listed([{"name": "n", "type": "int_log", "low": 1, "high": 9, "choices": None}])
        {'n': {'type': 'int', 'low': 1, 'high': 9, 'log': True}}
    """
    if not isinstance(parameters, list):
        raise SpecError(key, f"{parameters!r} is no list (expected [{{name: ..., type: ...}}])")
    found: dict[str, Any] = {}
    for i, entry in enumerate(cast(list[Any], parameters)):
        name = entry.get("name") if is_mapping(entry) else None
        if not isinstance(name, str) or not name:
            raise SpecError(f"{key}[{i}].name", f"missing in {entry!r} (expected a param's name)")
        if name in found:
            raise SpecError(f"{key}[{i}].name", f"{name!r} is there twice (expected it once)")
        found[name] = {k: v for k, v in entry.items() if k != "name" and v is not None}
    return explicit(found)


def _explicit(key: str, param: Any) -> Any:
    if isinstance(param, str):
        text = param.strip()
        return _from_sweep(key, text, _parsed(key, text))
    if is_mapping(param) and param.get("type") in _LOG:
        return {**param, "type": _LOG[param["type"]], "log": True}
    return param


def _parsed(key: str, text: str) -> Sweep:
    try:
        # A name of its own, so that no text can be read as that of another key.
        value = OverridesParser.create().parse_override(f"param={text}").value()
    except HydraException as error:
        hint = "; write null as one of choices: in a mapping" if "null" in text else ""
        raise SpecError(
            key, f"{text!r} cannot be read: {str(error).splitlines()[0]} (expected {_FORMS}){hint}"
        ) from None
    if not isinstance(value, Sweep):
        raise SpecError(
            key, f"{text!r} is one value (expected {_FORMS}; a value for all trials: study.fixed)"
        )
    return value


def _from_sweep(key: str, text: str, sweep: Sweep) -> dict[str, Any]:
    others = sweep.tags - {"log"}
    if others:
        raise SpecError(key, f"{text!r} is tagged {', '.join(sorted(others))} (expected log alone)")
    log = {"log": True} if sweep.tags else {}
    match sweep:
        case ChoiceSweep(shuffle=True) | RangeSweep(shuffle=True):
            raise SpecError(
                key, f"{text!r}: the sampler chooses the order, so shuffle would mean nothing"
            )
        case ChoiceSweep() if log:
            raise SpecError(key, f"{text!r}: choices have no logarithm (expected no tag)")
        case ChoiceSweep():
            return {"type": "categorical", "choices": list(map(_plain, sweep.list))}
        case RangeSweep():
            return _from_range(key, text, sweep) | log
        case IntervalSweep(start=low, end=high):
            ints = isinstance(low, int) and isinstance(high, int)
            return {"type": "int" if ints else "float", "low": low, "high": high, **log}
        case _:
            raise SpecError(key, f"{text!r} is no search space (expected {_FORMS})")


def _from_range(key: str, text: str, sweep: RangeSweep) -> dict[str, Any]:
    # In decimal, as people count: 0.1 * 11 is not below 1.1. Hydra counts in binary.
    given = (sweep.start, sweep.stop, sweep.step)
    start, stop, step = (Decimal(str(number)) for number in given)
    if not all(number.is_finite() for number in (start, stop, step)) or step == 0:
        raise SpecError(key, f"{text!r} never ends (expected finite numbers, and a step but 0)")
    n_values = math.ceil((stop - start) / step)
    if n_values < 1:
        raise SpecError(key, f"{text!r} has no values (the stop is not among them)")
    ends = (start, start + (n_values - 1) * step)
    number = int if all(isinstance(each, int) for each in given) else float
    return {
        "type": number.__name__,
        "low": number(min(ends)),
        "high": number(max(ends)),
        "step": number(abs(step)),
    }


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value
