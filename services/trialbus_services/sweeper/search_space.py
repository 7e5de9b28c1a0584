"""Search space of a sweep: overrides of Hydra with sweeps, converted to the params of a study.

Source:
    hydra-optuna-sweeper 1.3: a range includes its stop, unlike in Hydra's own sweeper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException

from trialbus.errors import SpecError
from trialbus.study.search_space import CategoricalParam, Choice, FloatParam, IntParam, Param
from trialbus.study.validation import convert, is_mapping
from trialbus_services.worker.command_line import quote_for_hydra


@dataclass
class SweepSpace:
    """What a sweep varies, and what all of its jobs share."""

    params: dict[str, Param] = field(default_factory=dict[str, Param])
    """Params by the key of the override, with its prefix and package: `+model.width`."""
    fixed: dict[str, str] = field(default_factory=dict[str, str])
    """Overrides that all jobs share, as text by their key."""
    texts: dict[str, dict[Choice, str]] = field(default_factory=dict[str, dict[Choice, str]])
    """Text of each choice in an override, by key and choice: `'a b'` in quotes, `[1,2]`, `null`."""


def read_search_space(
    params: Mapping[str, Any], arguments: Iterable[str], config_loader: ConfigLoader | None
) -> SweepSpace:
    """Return the search space of a sweep.

    Args:
        params: `hydra.sweeper.params`; an override of the command line replaces its entry.
        arguments: Overrides of the command line.
        config_loader: Finds the choices of `glob(*)`.

    Raises:
        SpecError: An override cannot be parsed, or is a sweep that no param can be.
    """
    parser = OverridesParser.create(config_loader=config_loader)
    space = SweepSpace()
    texts = [(f"hydra.sweeper.params.{key}", f"{key}={value}") for key, value in params.items()]
    for source, text in [*texts, *((argument, argument) for argument in arguments)]:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise SpecError(source, f"{text!r} is no override of Hydra: {error}") from None
        key = override.get_key_element()
        for earlier in (space.params, space.fixed, space.texts):
            earlier.pop(key, None)
        if override.is_sweep_override():
            try:
                space.params[key], space.texts[key] = _make_param(override)
            except ValueError as error:
                raise SpecError(source, f"{override.input_line!r}: {error}") from None
        else:
            space.fixed[key] = override.input_line or text
    return space


def read_written_space(search_space: Any) -> dict[str, Param]:
    """Return the params of `hydra.sweeper.search_space`, the older form of `params`.

    Raises:
        SpecError: An entry is no param; names the key.
    """
    key = "hydra.sweeper.search_space"
    if not is_mapping(search_space):
        raise SpecError(key, f"{search_space!r} is not a mapping (expected params by name)")
    return {
        str(name): convert(f"{key}.{name}", _complete_entry(entry), Param)
        for name, entry in search_space.items()
    }


def format_job(space: SweepSpace, params: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a job: those that all jobs share, then the params of the trial.

    Args:
        space: Search space of the sweep.
        params: Value of each param of the trial. A choice is written as it stood in the sweep.
    """
    return [
        *space.fixed.values(),
        *(
            f"{name}={space.texts.get(name, {}).get(value) or _format_value(value)}"
            for name, value in params.items()
        ),
    ]


def _make_param(override: Override) -> tuple[Param, dict[Choice, str]]:
    """Return the param of an override that is a sweep, and the text of each choice.

    Raises:
        ValueError: The values are out of order, or a choice is repeated.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        return _make_interval(value), {}
    if isinstance(value, RangeSweep) and not value.shuffle:
        return _make_range(value), {}
    elements = list(override.sweep_iterator(transformer=Transformer.identity))
    choices: list[Choice] = [cast("Choice", Transformer.encode(element)) for element in elements]
    texts = dict(zip(choices, map(Transformer.str, elements), strict=True))
    return CategoricalParam(choices=tuple(choices)), texts


def _complete_entry(entry: Any) -> Any:
    """Return an entry of `search_space` without keys that are null, and a stop on its step."""
    if not is_mapping(entry):
        return entry
    data = {name: value for name, value in entry.items() if value is not None}
    if data.get("step") and not data.get("log"):
        data["high"] = _round_down(data.get("low", 0), data.get("high", 0), data["step"])
    return data


def _format_value(value: Any) -> str:
    """Return a value as the text of an override; text is Hydra's grammar already."""
    return value if isinstance(value, str) else quote_for_hydra(value)


def _make_interval(value: IntervalSweep) -> Param:
    low, high, log = value.start, value.end, "log" in value.tags
    assert low is not None and high is not None  # noqa: PT018 - Hydra's grammar demands both
    if isinstance(low, int) and isinstance(high, int):
        return IntParam(low=low, high=high, log=log)
    return FloatParam(low=float(low), high=float(high), log=log)


def _make_range(value: RangeSweep) -> Param:
    low, high, step = value.start, value.stop, value.step
    assert low is not None and high is not None  # noqa: PT018 - Hydra's grammar demands both
    if step <= 0 or low > high:
        raise ValueError(f"step {step} from {low} to {high} (expected an ascending range)")
    high = _round_down(low, high, step)
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int):
        return IntParam(low=low, high=high, step=step)
    return FloatParam(low=float(low), high=float(high), step=float(step))


def _round_down(low: float, high: float, step: float) -> float:
    """Return the last value of a range, as Optuna does for a stop between two values."""
    begin, end, width = (Decimal(str(number)) for number in (low, high, step))
    last = begin + (end - begin) // width * width
    return int(last) if isinstance(high, int) and last == last.to_integral() else float(last)
