"""ComposedConfig: the config of a command, however it was composed. Imports no Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class ComposedConfig:
    """A config together with the command line that composes the same config again."""

    config: DictConfig
    """The config, without the section `hydra`; in a service of a launcher, the same as plain data,
    which `sections` reads in the same way."""
    arguments: list[str]
    """Options and overrides with which another command composes the same config, secrets
    included."""


def resolve_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a config as plain data; None if a value is missing or a reference has no value."""
    if isinstance(config, dict):
        return config  # pyright: ignore[reportUnknownVariableType]
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # pyright: ignore[reportArgumentType]
    except OmegaConfBaseException:
        return None
    return plain


def replace_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config of plain data with other values.

    Args:
        config: The config.
        values: Values by dotted key: a section and a name.

    Example:
        >>> replace_values({"worker": {"slots": 1, "gpus": None}}, {"worker.slots": 2})
        {'worker': {'slots': 2, 'gpus': None}}
    """
    replaced = dict(config)
    for key, value in values.items():
        section, _, name = key.partition(".")
        replaced[section] = {**replaced[section], name: value}
    return replaced
