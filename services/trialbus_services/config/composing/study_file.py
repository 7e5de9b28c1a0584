"""Study file: one YAML file with everything about a study, named on the command line.

```yaml
# conf/mine.yaml, run by `trialbus study conf/mine.yaml`
trainer:
  command: [python, train.py]
study:
  name: mine
  n_trials: 50
  objective: {metric: val/accuracy}
  params:
    lr: {type: float, low: 1.0e-5, high: 0.1, log: true}
sampler: random   # a file of the group, or a mapping
```

The file stands on top of trialbus' own configuration, and overrides of the command line on top of
the file. A W&B sweep is a study file, too, and may have sections of a study file beside its keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trialbus.errors import SpecError
from trialbus.study.validation import format_expected, is_mapping
from trialbus_services.config.composing.errors import ConfigError, explain_yaml_error
from trialbus_services.config.composing.provenance import shorten_path
from trialbus_services.config.composing.yaml_position import find_position
from trialbus_services.config.settings import SECTIONS
from trialbus_services.config.wandb_sweep import convert_sweep, is_sweep

#: Name under which Hydra finds the study file of a command line.
STUDY_FILE = "study_file"

_SUFFIXES = (".yaml", ".yml")
#: Groups with a file chosen by default; a mapping in the study file is merged into that file.
_GROUPS = (*SECTIONS, "study", "sampler", "pruner", "callbacks", "phase")
_VALUES = ("log_level", "from_phase", "phases", "hydra")
#: Names at the top of the config, and in a study file.
KNOWN_KEYS = frozenset({*_GROUPS, *_VALUES, "args"})
#: Keys of a study that no section has: a file with these holds the section `study` alone.
_STUDY_KEYS = ("params", "objective", "n_trials")


@dataclass(frozen=True)
class StudyFile:
    """A study file that was read."""

    path: Path
    """Absolute path of the file."""
    choices: dict[str, str | list[str] | None]
    """File of each group that the study file chooses by name; None for no file of the group."""
    config: dict[str, Any]
    """Values by section."""


def is_study_file(argument: str) -> bool:
    """Tell whether an argument of a command line names a study file."""
    return argument.endswith(_SUFFIXES) and "=" not in argument


def find_study_file(overrides: Sequence[str]) -> Path | None:
    """Return the absolute path of the study file among overrides; None if there is none.

    Raises:
        ConfigError: The overrides name several files.
    """
    files = [override for override in overrides if is_study_file(override)]
    if len(files) > 1:
        raise ConfigError("command line", f"{' and '.join(files)} (expected one study file)", None)
    return Path(files[0]).absolute() if files else None


def read_study_file(path: Path) -> StudyFile:
    """Read a study file.

    Raises:
        ConfigError: The file cannot be read, is not a mapping, has an unknown section, or is a
            sweep with a part that has no counterpart.
    """
    data = _load_mapping(path)
    if is_sweep(data):
        try:
            data = _merge_sweep(data, path)
        except SpecError as error:
            raise ConfigError(error.key, error.problem, _describe(path, error.key)) from None
    elif "study" not in data and any(key in data for key in _STUDY_KEYS):
        data = {"study": dict(data)}
    choices: dict[str, str | list[str] | None] = {"study": None}
    config: dict[str, Any] = {}
    for key, value in data.items():
        if key not in _GROUPS and key not in _VALUES:
            hint = format_expected(key, [*_GROUPS, *_VALUES])
            raise ConfigError(key, f"there is no such section{hint}", _describe(path, key))
        choice = _choose_file(key, value) if key in _GROUPS else _DEFAULT
        if choice is not _DEFAULT:
            choices[key] = choice
        if key in _VALUES or is_mapping(value):
            config[key] = value
    return StudyFile(path, choices, config)


def _merge_sweep(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a sweep as sections, with the sections that the file has beside the keys of a sweep.

    Raises:
        SpecError: A key of the sweep is unknown, or has no counterpart.
    """
    own = {key: value for key, value in data.items() if key in KNOWN_KEYS}
    sweep = {key: value for key, value in data.items() if key not in own}
    merged = convert_sweep(sweep, folder=path.parent, name=path.stem)
    for key, value in own.items():
        converted = merged.get(key)
        if is_mapping(converted) and is_mapping(value) and "type" not in value:
            merged[key] = {**converted, **value}
        else:
            merged[key] = value
    return merged


def store_study_file(file: StudyFile) -> None:
    """Make Hydra find a study file under the name `STUDY_FILE`, as a primary config."""
    overrides = [{f"override {group}": choice} for group, choice in file.choices.items()]
    ConfigStore.instance().store(
        name=STUDY_FILE,
        node={"defaults": ["config", *overrides, "_self_"], **file.config},
        provider=str(file.path),
    )


def _load_mapping(path: Path) -> Mapping[str, Any]:
    try:
        # References are resolved in the composed config.
        data: Any = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigError(
            "command line", f"{str(path)!r}: {error.strerror} (expected a study file)", None
        ) from None
    except yaml.MarkedYAMLError as error:
        raise explain_yaml_error(error) from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(path.name, " ".join(str(error).split()), _describe(path)) from None
    if not is_mapping(data) or not data:
        problem = "holds no mapping (expected sections such as study and trainer)"
        raise ConfigError(path.name, problem, _describe(path))
    return data


def _describe(path: Path, key: str = "") -> str:
    """Return the file, with the line of a key where the file has the key."""
    depth, line = find_position(path, key.split(".")) if key else (0, 1)
    return f"in {shorten_path(path)}" + (f", line {line}" if depth else "")


_DEFAULT: Any = object()


def _choose_file(group: str, value: Any) -> str | list[str] | None:
    """Return the file of a group that a value chooses, or `_DEFAULT` for the group's default."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return [str(name) for name in cast(list[Any], value)]
    if value is None:
        return "none" if group == "pruner" else None
    if is_mapping(value):
        if group in ("sampler", "pruner") and "type" in value:
            return None  # the arguments in the default file are those of another class
        if group == "trainer" and {"command", "function"} & set(value):
            return None
    return _DEFAULT
