"""From a command line and a tree of YAML files to a config, and what is said of mistakes in it."""

from trialbus_services.config.composing.compose import (
    PRIMARY,
    TREE,
    VERSION_BASE,
    Composed,
    composed,
    parsed,
    repeated,
)
from trialbus_services.config.composing.errors import ConfigError
from trialbus_services.config.composing.schema import register

__all__ = [
    "PRIMARY",
    "TREE",
    "VERSION_BASE",
    "Composed",
    "ConfigError",
    "composed",
    "parsed",
    "register",
    "repeated",
]
