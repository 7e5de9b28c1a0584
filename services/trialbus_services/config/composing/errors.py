"""Errors of composing, as texts: key, value, expected values, and the source of the value."""

from __future__ import annotations

import re
import shlex
from collections.abc import Container as AbstractContainer
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from trialbus.errors import SpecError
from trialbus.study.validation import format_expected
from trialbus_services.config.composing.provenance import ConfigSources, shorten_path
from trialbus_services.config.secrets import mask_message, mask_secrets

#: Exceptions that composing raises for a wrong config.
COMPOSE_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    yaml.YAMLError,
    ConfigCompositionException,
)

#: Hydra's warning about a folder of `hydra.searchpath` that is not there, as a pattern.
SEARCH_PATH_WARNING = r"provider=hydra\.searchpath .*, path=(.*) is not available"

_TYPES = {
    "Integer": "a whole number",
    "Float": "a number",
    "bool": "true or false",
    "String": "a text",
}
_CONVERSION_FAILED = re.compile(
    r"Value '(.*)' (?:of type '.*' could not be converted to (\w+)|is not a valid (\w+))", re.DOTALL
)
_ADDED = re.compile(r"\+{1,2}(\w+)[.=]")
#: What is wrong, by the pattern of OmegaConf's text, which names its own classes.
_WRONG_KINDS = {
    r"Cannot merge \w+ with \w+": (
        "is a list where a mapping belongs, or a mapping where a list belongs"
    ),
    r"Cannot assign \w+ to Dict\b": "is no mapping (expected a mapping of names to values)",
    r"Invalid value assigned: \w+ is not a ListConfig": "is no list (expected a list)",
}
_SWEEP = re.compile(r"(?<=Sweep parameters ')[^=\s]+=.*(?=' requires --multirun)", re.DOTALL)
_UNKNOWN_FUNCTION = re.compile(r"Unknown function '(\w+)'")
_IN_CONFIG = re.compile(r"^In '([^']+)'")


class ConfigError(SpecError):
    """A value of the config cannot be used.

    Attributes:
        source: Where the value was set, as text; None where the source is unknown.
    """

    def __init__(self, key: str, problem: str, source: str | None) -> None:
        super().__init__(key, mask_message(problem))
        self.source = source

    def __str__(self) -> str:
        """Return the key and the problem, and on a second line where the value was set."""
        return super().__str__() + (f"\n  {self.source}" if self.source else "")


def add_source(error: SpecError, config: DictConfig, sources: ConfigSources) -> ConfigError:
    """Return an error of a composed config together with the place where the value was set."""
    key, problem = _extend_key(error, config)
    if problem.startswith("no such key"):
        problem = _find_elsewhere(key, config) or problem
    return ConfigError(key, problem, sources.describe_value(key))


def explain_error(error: Exception, sources: ConfigSources) -> ConfigError:
    """Return an exception of composing as an error with the key, the problem and the source."""
    match error:
        case OverrideParseException():
            return ConfigError("command line", _explain_override(error), None)
        case MissingConfigException():
            return _explain_missing_config(error, sources)
        case yaml.MarkedYAMLError():
            return explain_yaml_error(error)
        case _:
            pass
    cause = error if isinstance(error, OmegaConfBaseException) else _get_cause(error)
    if cause is not None and cause.full_key:
        return _explain_wrong_value(error, cause, sources)
    return _explain_text(str(error) or str(cause), sources)


def explain_search_path(warning: UserWarning, sources: ConfigSources) -> ConfigError:
    """Return Hydra's `SEARCH_PATH_WARNING` as an error of `hydra.searchpath`."""
    path_match = re.match(SEARCH_PATH_WARNING, str(warning))
    path = path_match[1] if path_match else str(warning)
    problem = (
        f"{path!r} does not exist (expected a folder of YAML files, or pkg://<package> with an "
        "__init__.py)"
    )
    return ConfigError("hydra.searchpath", problem, sources.describe_value("hydra.searchpath"))


def explain_yaml_error(error: yaml.MarkedYAMLError) -> ConfigError:
    """Return an error of a YAML parser as an error with the file and the line."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return ConfigError("config", _get_first_line(str(error)), None)
    file = Path(mark.name)
    problem = f"is not valid YAML: {error.problem or error.context}"
    return ConfigError(file.stem, problem, f"in {shorten_path(file)}, line {mark.line + 1}")


def _explain_text(text: str, sources: ConfigSources) -> ConfigError:
    """Return an error with a text of Hydra, which has no key as a field."""
    # Hydra's own texts, "Could not override 'x'" or "In 'study/mine': ...", are passed on.
    sweep = _SWEEP.search(text)
    if sweep:
        key, _, value = mask_secrets(sweep[0]).partition("=")
        problem = f"{key}={value} is a sweep of Hydra, which needs --multirun"
        return ConfigError(key.lstrip("+"), f"{problem}{_advise_quotes(key, value)}", None)
    config_match = _IN_CONFIG.match(text)
    config = config_match[1] if config_match else None
    if "Merge error" in text and config:
        problem = "is a list, or a mapping where no mapping belongs (expected a mapping of keys)"
        return ConfigError(config, problem, sources.describe_file(config))
    key_match = re.search(r"(?:override|argument|already at|config\.) '([\w./@]+)", text)
    key = key_match[1] if key_match else config or "config"
    source = sources.describe_file(config) if config else None
    return ConfigError(key, " ".join(text.split()), source or sources.describe_value(key))


def _explain_wrong_value(
    error: Exception, cause: OmegaConfBaseException, sources: ConfigSources
) -> ConfigError:
    key = str(cause.full_key)
    problem = _get_first_line(str(cause.msg or cause))
    wrong_kinds = (text for pattern, text in _WRONG_KINDS.items() if re.match(pattern, problem))
    problem = next(wrong_kinds, problem)
    conversion = _CONVERSION_FAILED.match(str(cause.msg))
    if conversion:
        type_name = conversion[2] or conversion[3]
        expected = _TYPES.get(type_name, type_name)
        value = mask_secrets({key: conversion[1]})[key]
        problem = f"{value!r} cannot be used (expected {expected})"
    elif isinstance(cause, ConfigAttributeError | ConfigKeyError):
        parent = cause.parent_node
        names = list(map(str, parent)) if isinstance(parent, DictConfig) else []
        problem = f"no such key{format_expected(key.rpartition('.')[2], names)}"
        if isinstance(parent, DictConfig):
            problem = _find_elsewhere(key, parent) or problem
    config_match = _IN_CONFIG.match(str(error))
    if config_match is None:
        return ConfigError(key, problem, sources.describe_value(key))
    # The package of the file is unknown before the config is composed: try every end of the key.
    parts = key.split(".")
    descriptions = [
        sources.describe_file(config_match[1], parts[start:]) for start in range(len(parts) + 1)
    ]
    with_line = (text for text in descriptions if text and ", line" in text)
    return ConfigError(key, problem, next(with_line, descriptions[-1]))


def _find_elsewhere(key: str, config: DictConfig) -> str | None:
    """Return the problem of a key that stands in the wrong section; None if no section has it."""
    name = key.rpartition(".")[2]
    if "." in key and name in config:  # study.sampler=random
        return f"no such key; did you mean {name!r}?"
    sections = [str(section) for section in config if section != "hydra"]
    found = [section for section in sections if _has_key(config, f"{section}.{name}")]
    if "." in key or len(found) != 1:
        return None
    return f"no such key; did you mean {f'{found[0]}.{name}'!r}?"


def check_added_keys(
    config: DictConfig, overrides: Iterable[str], known: AbstractContainer[str], place: str
) -> None:
    """Check that something reads each section that a command line adds with a plus.

    Raises:
        ConfigError: No section of trialbus has the name, and the config does not refer to it.
    """
    for override in overrides:
        added = _ADDED.match(override)
        if added is None or added[1] in known or added[1] not in config:
            continue
        if f"${{{added[1]}" not in OmegaConf.to_yaml(config):
            raise ConfigError(
                added[1],
                "nothing reads this key (expected a key of a section, such as "
                f"+trainer.env.NAME=value, or a key that the config refers to as ${{{added[1]}}})",
                f"{place}: {mask_secrets(override)}",
            )


def _explain_override(error: OverrideParseException) -> str:
    override = mask_secrets(error.override)
    if "=" not in override and override.endswith(".py"):
        return (
            f"{override!r} is a program (expected a study file, such as the one that "
            f"`trialbus init {shlex.quote(override)}` writes)"
        )
    reason = ""
    if override == error.override:  # Hydra's reason quotes parts of the value
        # One line, without the names of tokens that Hydra's grammar expected.
        text = error.message.partition("\n")[2] or error.message
        reason = ": " + re.split(r" expecting |\n", text)[0]
        function = _UNKNOWN_FUNCTION.search(error.message)
        key, _, value = override.partition("=")
        if function:
            return (
                f"{override!r} cannot be read: Hydra has no function {function[1]!r}"
                f"{_advise_quotes(key, value)}"
            )
    return (
        f"{override!r} cannot be read{reason} "
        "(expected key=value; quote a value with other characters)"
    )


def _advise_quotes(key: str, value: str) -> str:
    """Return how to write a value with parentheses or commas as one text on a command line."""
    text = value.replace('"', "'")
    override = shlex.quote(f'{key}="{text}"')
    return (
        "; a text with parentheses or commas has to be quoted twice, for the shell and for Hydra "
        f"(expected {override})"
    )


def _explain_missing_config(error: MissingConfigException, sources: ConfigSources) -> ConfigError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    problem = f"there is no {name!r}{format_expected(name, error.options or ())}"
    if not group:
        return ConfigError("--config-name", problem, None)
    source = sources.describe_choice(group, name)
    config_match = _IN_CONFIG.match(str(error))
    if source is None and config_match:
        source = sources.describe_file(config_match[1])
    return ConfigError(group, problem, source)


def _extend_key(error: SpecError, config: DictConfig) -> tuple[str, str]:
    """Return key and problem, with a field at the start of the problem moved into the key."""
    field, _, problem = error.problem.partition(" ")
    field = field.removesuffix(":")
    key = f"{error.key}.{field}"
    if re.fullmatch(r"[a-z_]+([.\[]\w+\]?)*", field) and _has_key(config, key):
        return key, problem
    return error.key, error.problem


def _has_key(config: Container, key: str) -> bool:
    try:
        return OmegaConf.select(config, key, default=config, throw_on_missing=False) is not config
    except (OmegaConfBaseException, AttributeError):  # the latter inside a mapping that is ???
        return False


def _get_cause(error: Exception) -> OmegaConfBaseException | None:
    # Hydra raises some errors inside `except` without `from`.
    for inner in (error.__cause__, error.__context__):
        if isinstance(inner, OmegaConfBaseException):
            return inner
    return None


def _get_first_line(text: Any) -> str:
    return str(text).splitlines()[0] if str(text) else ""
