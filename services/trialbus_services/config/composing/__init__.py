"""Composing: a config from a command line and a tree of YAML files, and errors in that config."""

from trialbus_services.config.composing.compose import (
    PRIMARY,
    TREE,
    VERSION_BASE,
    compose_config,
    format_arguments,
    list_hydra_arguments,
    parse_arguments,
)
from trialbus_services.config.composing.errors import ConfigError
from trialbus_services.config.composing.schema import register

__all__ = [
    "PRIMARY",
    "TREE",
    "VERSION_BASE",
    "ConfigError",
    "compose_config",
    "format_arguments",
    "list_hydra_arguments",
    "parse_arguments",
    "register",
]
