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

from collections.abc import Mapping
from typing import Any

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
from trialbus.spec import is_mapping

_LOG = {"float_log": "float", "int_log": "int"}
_FORMS = "interval(low, high), range(start, stop, step), choice(a, b) or a mapping"


def explicit(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search space with every param as a mapping.

    Raises:
        SpecError: A text is no sweep, or one that does not describe a param; names it.
    """
    return {name: _explicit(f"study.params.{name}", param) for name, param in params.items()}


def _explicit(key: str, param: Any) -> Any:
    if isinstance(param, str):
        return _from_sweep(key, param, _parsed(key, param))
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
        case ChoiceSweep():
            return {"type": "categorical", "choices": list(map(_plain, sweep.list)), **log}
        case RangeSweep():
            values = list(sweep.range())
            if not values:
                raise SpecError(key, f"{text!r} has no values (the stop is not among them)")
            ints = all(isinstance(value, int) for value in values)
            step = abs(sweep.step)
            return {
                "type": "int" if ints else "float",
                "low": min(values),
                "high": max(values),
                **(log if log and step == 1 and ints else {"step": step, **log}),
            }
        case IntervalSweep(start=low, end=high):
            ints = isinstance(low, int) and isinstance(high, int)
            return {"type": "int" if ints else "float", "low": low, "high": high, **log}
        case _:
            raise SpecError(key, f"{text!r} is no search space (expected {_FORMS})")


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value
