"""What Hydra, OmegaConf and YAML raise, said as trialbus says it: key, value, expected, where."""

from __future__ import annotations

import re
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
from trialbus_services.config.composing.provenance import Sources

_TYPES = {
    "Integer": "a whole number",
    "Float": "a number",
    "bool": "true or false",
    "String": "a text",
}
_CONVERTED = re.compile(
    r"Value '(.*)' (?:of type '.*' could not be converted to (\w+)|is not a valid (\w+))", re.DOTALL
)
_IN_CONFIG = re.compile(r"^In '([^']+)'")


class ConfigError(SpecError):
    """A value of the config cannot be used.

    Attributes:
        source: Where it was set, for people; None where that cannot be said.
    """

    def __init__(self, key: str, problem: str, source: str | None) -> None:
        super().__init__(key, problem)
        self.source = source

    def __str__(self) -> str:
        """Return the mistake, and on a line of its own where it was made."""
        return super().__str__() + (f"\n  {self.source}" if self.source else "")


def located(error: SpecError, config: DictConfig, sources: Sources) -> ConfigError:
    """Return an error of a composed config with where the value was set."""
    key, problem = _refined(error, config)
    return ConfigError(key, problem, sources.of(key))


def explained(error: Exception, sources: Sources) -> ConfigError:
    """Return what went wrong while a config was composed."""
    match error:
        case OverrideParseException():
            return ConfigError("command line", _unreadable_override(error), None)
        case MissingConfigException():
            return _no_such_config(error, sources)
        case yaml.MarkedYAMLError():
            return _unreadable(error)
        case _:
            pass
    cause = error if isinstance(error, OmegaConfBaseException) else _cause(error)
    if cause is not None and cause.full_key:
        return _wrong_value(error, cause, sources)
    # "Could not override 'x'", "In 'study/mine': ..." and the like: the text is made for people.
    text = str(error) or str(cause)
    if "Merge error" in text and (listed := _IN_CONFIG.match(text)):
        problem = "is a list, or a mapping where no mapping belongs (expected a mapping of keys)"
        return ConfigError(listed[1], problem, sources.file(listed[1]))
    named = re.search(r"(?:override|argument|already at|config\.) '([\w./@]+)", text)
    within = _IN_CONFIG.match(text)
    source = sources.file(within[1]) if within else None
    key = named[1] if named else within[1] if within else "config"
    return ConfigError(key, " ".join(text.split()), source or sources.of(key))


def _wrong_value(error: Exception, cause: OmegaConfBaseException, sources: Sources) -> ConfigError:
    key = str(cause.full_key)
    problem = _first_line(str(cause.msg or cause))
    converted = _CONVERTED.match(str(cause.msg))
    if converted:
        type_ = converted[2] or converted[3]
        expected = _TYPES.get(type_, type_)
        problem = f"{converted[1]!r} cannot be used (expected {expected})"
    elif isinstance(cause, ConfigAttributeError | ConfigKeyError):
        parent = cause.parent_node
        names = list(map(str, parent)) if isinstance(parent, DictConfig) else []
        problem = f"no such key{format_expected(key.rpartition('.')[2], names)}"
    within = _IN_CONFIG.match(str(error))
    if within is None:
        return ConfigError(key, problem, sources.of(key))
    # The config is not composed, so that its packages are not known: the key's end is enough.
    parts = key.split(".")
    places = [sources.file(within[1], parts[start:]) for start in range(len(parts) + 1)]
    return ConfigError(key, problem, next((p for p in places if p and ", line" in p), places[-1]))


def _unreadable_override(error: OverrideParseException) -> str:
    # A line of its own, without the grammar's names of what it expected.
    reason = re.split(r" expecting |\n", error.message.partition("\n")[2] or error.message)[0]
    return (
        f"{error.override!r} cannot be read: {reason} "
        "(expected key=value; a value with other signs stands in quotes)"
    )


def _no_such_config(error: MissingConfigException, sources: Sources) -> ConfigError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    problem = f"there is no {name!r}{format_expected(name, error.options or ())}"
    if not group:
        return ConfigError("--config-name", problem, None)
    within = _IN_CONFIG.match(str(error))
    return ConfigError(
        group, problem, sources.choice(group, name) or (sources.file(within[1]) if within else None)
    )


def _unreadable(error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return ConfigError("config", _first_line(str(error)), None)
    file = Path(mark.name)
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    problem = f"is not YAML that can be read: {error.problem or error.context}"
    return ConfigError(file.stem, problem, f"in {shown}, line {mark.line + 1}")


def _refined(error: SpecError, config: DictConfig) -> tuple[str, str]:
    """Return the key and the problem with the field that the problem begins with in the key."""
    field, _, rest = error.problem.partition(" ")
    field = field.removesuffix(":")
    key = f"{error.key}.{field}"
    if re.fullmatch(r"[a-z_]+([.\[]\w+\]?)*", field) and _has(config, key):
        return key, rest
    return error.key, error.problem


def _has(config: Container, key: str) -> bool:
    try:
        return OmegaConf.select(config, key, default=config, throw_on_missing=False) is not config
    except (OmegaConfBaseException, AttributeError):  # the latter within a mapping that is ???
        return False


def _cause(error: Exception) -> OmegaConfBaseException | None:
    # Hydra raises some of them within `except`, without `from`.
    for inner in (error.__cause__, error.__context__):
        if isinstance(inner, OmegaConfBaseException):
            return inner
    return None


def _first_line(text: Any) -> str:
    return str(text).splitlines()[0] if str(text) else ""


#: What composing raises where the config is wrong.
MISTAKES = (HydraException, OmegaConfBaseException, yaml.YAMLError, ConfigCompositionException)
