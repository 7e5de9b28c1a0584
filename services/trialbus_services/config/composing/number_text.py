"""Number text: numbers on a command line as YAML writes them, which Hydra takes for text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException

from trialbus.study.validation import is_mapping
from trialbus_services.config.composing.errors import ConfigError

_YAML_NUMBER = re.compile(r"[+-]?\.(?:inf|nan)", re.IGNORECASE)
#: Groups in which text such as `.inf` is a number that was meant; a command may have such text.
_KEYS = ("study.", "sampler.", "pruner.")


def check_numbers(overrides: Sequence[str]) -> None:
    """Check that no override sets `.inf` or `.nan`, which are numbers in YAML and text for Hydra.

    Args:
        overrides: Overrides of a command line.

    Raises:
        ConfigError: An override has such a value outside of quotes; says how Hydra writes it.
    """
    for text in filter(_YAML_NUMBER.search, overrides):
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            continue  # reported by Hydra
        key = override.key_or_group
        # `value()` does not tell quoted text apart.
        parsed: Any = override._value  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        for value in _list_plain_texts(parsed):
            if key.startswith(_KEYS) and _YAML_NUMBER.fullmatch(value):
                number = value.lower().replace(".", "").lstrip("+")
                raise ConfigError(
                    key,
                    f"{value!r} is text on a command line (expected {number} for the number, or "
                    f"\"'{value}'\" for the text)",
                    None,
                )


def _list_plain_texts(value: Any) -> Iterator[str]:
    """Yield the texts without quotes in a parsed value of an override."""
    match value:
        case str():
            yield value
        case list() | ChoiceSweep():
            for inner in value if isinstance(value, list) else value.list:  # pyright: ignore[reportUnknownVariableType]
                yield from _list_plain_texts(inner)
        case dict() if is_mapping(value):
            for inner in value.values():
                yield from _list_plain_texts(inner)
        case _:
            return
