"""Search spaces in the short forms of YAML files, expanded to the mappings of `load_spec`.

A param is written as a mapping (`{type: float, low: 0, high: 1, log: false, step: null}`), where
`float_log` and `int_log` are types as well, or as a text in the grammar of Hydra's sweeps:

| text | param |
|---|---|
| `interval(0, 1)` | float |
| `int(interval(1, 8))` | int, both ends included |
| `tag(log, interval(1e-5, 1e-1))` | float, sampled by its logarithm |
| `range(0, 1, 0.25)` | 0, 0.25, 0.5, 0.75: the stop is excluded, as in Hydra and Python |
| `choice(adam, sgd)` or `adam, sgd` | categorical |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from trialbus.errors import SpecError
from trialbus.study.validation import is_mapping

if TYPE_CHECKING:  # imported where a text is read: most params are mappings
    from hydra.core.override_parser.types import RangeSweep, Sweep

_LOG = {"float_log": "float", "int_log": "int"}
_FORMS = "interval(low, high), range(start, stop, step), choice(a, b) or a mapping"


def expand_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search space with every param as a mapping.

    Raises:
        SpecError: A text is not a sweep, or does not describe a param; names the param.
    """
    return {
        name: _expand(f"study.params.{name}", param)
        for name, param in _merge_dotted(params).items()
    }


def _merge_dotted(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return params with the values that a command line gives to a param with dots in its name.

    Hydra reads `study.params.optimizer.lr.low=0` as nested keys, beside the param `optimizer.lr`.
    """
    merged = dict(params)
    for name in [name for name in params if "." in name]:
        *parts, last = name.split(".")
        place = merged
        for part in parts:
            inner = place.get(part)
            if not is_mapping(inner) or "type" in inner:
                break
            place[part] = place = dict(inner)
        else:
            values = place.pop(last, None)
            if is_mapping(values) and is_mapping(merged[name]):
                merged[name] = {**merged[name], **values}
            elif values is not None:
                merged[name] = values
    # What the command line nested is used up.
    return {name: param for name, param in merged.items() if name in params and param != {}}


def expand_list(parameters: Any, key: str = "study.parameters") -> dict[str, Any]:
    """Return the search space of a list of parameters, each with a key `name`.

    An entry is `{name: lr, type: float_log, low: 1e-5, high: 0.1}`. Keys with the value null are
    left out: programs write null for the keys that a parameter does not use.

    Args:
        parameters: List of mappings.
        key: Dotted path of the list, for errors.

    Raises:
        SpecError: `parameters` is not a list, an entry has no name, or two have the same name.

    Example:
        >>> expand_list([{"name": "n", "type": "int_log", "low": 1, "high": 9, "choices": None}])
        {'n': {'type': 'int', 'low': 1, 'high': 9, 'log': True}}
    """
    if not isinstance(parameters, list):
        raise SpecError(key, f"{parameters!r} is not a list (expected [{{name: ..., type: ...}}])")
    params: dict[str, Any] = {}
    for i, entry in enumerate(cast(list[Any], parameters)):
        name = entry.get("name") if is_mapping(entry) else None
        if not isinstance(name, str) or not name:
            raise SpecError(f"{key}[{i}].name", f"missing in {entry!r} (expected a param's name)")
        if name in params:
            raise SpecError(f"{key}[{i}].name", f"{name!r} is given twice (expected once)")
        params[name] = {k: v for k, v in entry.items() if k != "name" and v is not None}
    return expand_params(params)


def _expand(key: str, param: Any) -> Any:
    if isinstance(param, str):
        text = param.strip()
        return _convert_sweep(key, text, _parse_sweep(key, text))
    if is_mapping(param) and param.get("type") in _LOG:
        return {**param, "type": _LOG[param["type"]], "log": True}
    if isinstance(param, bool | int | float | list | tuple):
        raise SpecError(key, f"{param!r} is no param (expected {_FORMS}{_suggest_text(param)})")
    return param


def _suggest_text(param: Any) -> str:
    """Return the text that a list or a value was likely to mean."""
    match param:
        case [int() | float() as low, int() | float() as high] if low < high:
            text = f"interval({low}, {high})"
            if isinstance(low, int) and isinstance(high, int):
                text = f"int({text})"
            log = f", or 'tag(log, {text})'" if low > 0 else ""
            return f"; here {text!r}{log}"
        case [*choices] if choices:
            names = ", ".join(map(str, choices))
            return f"; here 'choice({names})'"
        case _:
            return "; a value for all trials: study.fixed"


def _parse_sweep(key: str, text: str) -> Sweep:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Sweep
    from hydra.errors import HydraException

    try:
        # Behind a key of our own, so that no text can be read as the value of another key.
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


def _convert_sweep(key: str, text: str, sweep: Sweep) -> dict[str, Any]:
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

    unknown = sweep.tags - {"log"}
    if unknown:
        raise SpecError(
            key, f"{text!r} is tagged {', '.join(sorted(unknown))} (expected log alone)"
        )
    log = {"log": True} if sweep.tags else {}
    match sweep:
        case ChoiceSweep(shuffle=True) | RangeSweep(shuffle=True):
            raise SpecError(
                key, f"{text!r}: the sampler chooses the order, so shuffle would mean nothing"
            )
        case ChoiceSweep() if log:
            raise SpecError(key, f"{text!r}: choices have no logarithm (expected no tag)")
        case ChoiceSweep():
            return {"type": "categorical", "choices": list(map(_unquote, sweep.list))}
        case RangeSweep():
            return _convert_range(key, text, sweep) | log
        case IntervalSweep(start=low, end=high):
            ints = isinstance(low, int) and isinstance(high, int)
            return {"type": "int" if ints else "float", "low": low, "high": high, **log}
        case _:
            raise SpecError(key, f"{text!r} is not a search space (expected {_FORMS})")


def _convert_range(key: str, text: str, sweep: RangeSweep) -> dict[str, Any]:
    # Decimal, because in binary floating point 0.1 * 11 is not 1.1.
    numbers = (sweep.start, sweep.stop, sweep.step)
    start, stop, step = (Decimal(str(number)) for number in numbers)
    if not all(number.is_finite() for number in (start, stop, step)) or step == 0:
        raise SpecError(key, f"{text!r} never ends (expected finite numbers, and a step but 0)")
    n_values = math.ceil((stop - start) / step)
    if n_values < 1:
        raise SpecError(key, f"{text!r} has no values (the stop is not among them)")
    ends = (start, start + (n_values - 1) * step)
    type_ = int if all(isinstance(number, int) for number in numbers) else float
    return {
        "type": type_.__name__,
        "low": type_(min(ends)),
        "high": type_(max(ends)),
        "step": type_(abs(step)),
    }


def _unquote(value: Any) -> Any:
    from hydra.core.override_parser.types import QuotedString

    return value.text if isinstance(value, QuotedString) else value
