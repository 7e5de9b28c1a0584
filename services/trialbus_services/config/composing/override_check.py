"""Check of overrides: values that Hydra takes for something else, or fails on by a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException

from trialbus.study.validation import is_mapping
from trialbus_services.config.composing.errors import ConfigError

_YAML_NUMBER = re.compile(r"[+-]?\.(?:inf|nan)", re.IGNORECASE)
#: Groups in which text such as `.inf` is a number that was meant; a command may have such text.
_KEYS = ("study.", "sampler.", "pruner.")


def check_overrides(overrides: Sequence[str]) -> None:
    """Check that overrides set no values that Hydra misunderstands.

    `.inf` and `.nan` are numbers in YAML and text for Hydra. The names of a config group's files
    have to be text.

    Args:
        overrides: Overrides of a command line.

    Raises:
        ConfigError: An override has such a value; says what was expected.
    """
    for text in overrides:
        if not (_YAML_NUMBER.search(text) or "=[" in text):
            continue
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            continue  # reported by Hydra
        key = override.key_or_group
        # `value()` does not tell quoted text apart, and refuses sweeps.
        parsed: Any = override._value  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if "." not in key and isinstance(parsed, list) and not _has_only_text(parsed):  # pyright: ignore[reportUnknownArgumentType]
            _, _, given = text.partition("=")
            raise ConfigError(
                key, f"{given} holds a value that is no text (expected names of configs)", None
            )
        for part in _list_plain_texts(parsed):
            if key.startswith(_KEYS) and _YAML_NUMBER.fullmatch(part):
                number = part.lower().replace(".", "").lstrip("+")
                raise ConfigError(
                    key,
                    f"{part!r} is text on a command line (expected {number} for the number, or "
                    f"\"'{part}'\" for the text)",
                    None,
                )


def _has_only_text(values: Sequence[object]) -> bool:
    return all(isinstance(value, str | QuotedString) for value in values)


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
