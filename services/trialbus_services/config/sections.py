"""Sections of the composed Hydra config, each read into a settings type and checked.

A service reads only the sections it needs, so a mistake in a study never keeps the hub from
starting.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trialbus.callbacks import CallbackFactory
from trialbus.errors import SpecError
from trialbus.protocol.endpoint import resolve
from trialbus.study.spec import StudySpec
from trialbus.study.spec_loading import check_keys, load_spec
from trialbus.study.validation import convert, is_mapping
from trialbus_services.config.base_config import read_base_config
from trialbus_services.config.search_space import expand_params
from trialbus_services.config.settings import (
    PICKLE_SUFFIX,
    SECTIONS,
    BusSettings,
    KeySettings,
    TrainerSettings,
)
from trialbus_services.process.search_path import build_search_path

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_SECTION_NAMES = {type_: name for name, type_ in SECTIONS.items()}
#: Overrides that set values which every study has to have.
_EXAMPLES = {
    "trainer.command": "trainer.command=[python,train.py]",
    "trainer.function": "trainer.function=train:main",
    "study.n_trials": "study.n_trials=50; run_cap: 50 in a sweep of W&B",
}
_MISSING_VARIABLE = re.compile(r"Environment variable '(\w+)' not found")

_S = TypeVar("_S", bound=msgspec.Struct)


def read_section(config: Mapping[str, Any], type_: type[_S]) -> _S:
    """Return the section of the config that has a type of `settings.SECTIONS`.

    Raises:
        SpecError: A key is unknown, missing or of the wrong type; names the key and the value.

    Example:
        >>> read_section(config, WorkerSettings).slots  # doctest: +SKIP
        2
    """
    name = _SECTION_NAMES[type_]
    section: _S = convert(name, read_plain(config, name), type_)
    return section


def read_bus(config: Mapping[str, Any]) -> BusSettings:
    """Return the section `bus` with an absolute endpoint."""
    bus = read_section(config, BusSettings)
    # Empty where the variable TRIALBUS_ENDPOINT is.
    endpoint = resolve(bus.endpoint or f"ipc://{bus.dir}/hub.sock")
    return msgspec.structs.replace(bus, endpoint=endpoint)


def check_keys_exist(keys: KeySettings, user: str) -> None:
    """Check that the folder of keys has what a client of the bus needs.

    Args:
        keys: Keys of the bus.
        user: Name of the service, see `KeySettings.get_name`.

    Raises:
        SpecError: The user's key, or the public key of the hub, is not in the folder.
    """
    files = map(Path, keys.environment(keys.get_name(user)).values())
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise SpecError(
            "bus.keys.dir",
            f"{keys.dir!r} has no {' and no '.join(missing)} (expected the keys of the bus, which "
            f"`trialbus keys --dir {shlex.quote(keys.dir)} init` makes where the hub runs)",
        )


def read_study(config: Mapping[str, Any]) -> StudySpec:
    """Return the specification of the study, including the sampler and the pruner.

    Raises:
        SpecError: See `trialbus.load_spec`.
    """
    # Before the check for missing values: a value may stand under a misspelt key.
    check_keys(map(str, config.get("study") or ()))
    study = read_plain(config, "study")
    if is_mapping(study) and is_mapping(study.get("params")):
        study = {**study, "params": expand_params(study["params"])}
    if is_mapping(study) and "base_config" in study:
        study = {**study, "base_config": read_base_config(study["base_config"])}
    return load_spec(
        study,
        sampler=read_plain(config, "sampler"),
        pruner=read_plain(config, "pruner", optional=True),
    )


def read_trainer(config: Mapping[str, Any]) -> TrainerSettings:
    """Return the section `trainer` after a check that the program or the module exists.

    Raises:
        SpecError: See `read_section`; or the program, the module or the folder does not exist.
    """
    trainer = read_section(config, TrainerSettings)
    folder = Path() if has_own_folder(trainer) else Path(trainer.cwd or ".")
    if not folder.is_dir():
        raise SpecError("trainer.cwd", f"{trainer.cwd!r} is not a folder")
    for source in trainer.metric_sources:
        if source.tensorboard is not None and find_spec("tensorboard") is None:
            raise SpecError(
                "trainer.metrics",
                f"({source}) needs a package that is not installed: "
                'pip install "trialbus[tensorboard]"',
            )
    if trainer.function is None:
        _check_command(trainer.argv, folder)
    else:
        _check_function(trainer.function, trainer, folder)
    return trainer


def has_own_folder(trainer: TrainerSettings) -> bool:
    """Tell whether each trial runs in a folder of its own."""
    return trainer.cwd is not None and "{" in trainer.cwd


def read_callbacks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `callbacks` as plain data; the callbacks are built in the trainings.

    Raises:
        SpecError: See `trialbus.callbacks.CallbackFactory`.
    """
    callbacks = read_plain(config, "callbacks")
    CallbackFactory(callbacks)
    return callbacks


def read_plain(config: Mapping[str, Any], name: str, *, optional: bool = False) -> Any:
    """Return a section as plain data with all references resolved.

    Args:
        config: Composed config.
        name: Name of the section.
        optional: Whether the section may be empty; `None` is returned then.

    Raises:
        SpecError: A value is missing, a reference cannot be resolved, or the section is empty and
            not `optional`.
    """
    # The schema has an empty mapping where no file of a group was chosen.
    data = (config.get(name) if isinstance(config, dict) else _resolve(config, name)) or None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if data is None and not optional:
        raise SpecError(name, "the section is empty")
    return data


def _resolve(config: Mapping[str, Any], name: str) -> Any:
    """Return a section of a config of OmegaConf as plain data, see `read_plain`."""
    # Not imported in a service whose launcher has resolved the config.
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        section = config.get(name)
        if not OmegaConf.is_config(section) or not section:
            return section
        return OmegaConf.to_container(section, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        example = _EXAMPLES.get(key)
        hint = f"expected for example {example}" if example else "??? stands for a missing value"
        raise SpecError(key, f"has no value yet ({hint})") from None
    except OmegaConfBaseException as error:
        key = str(error.full_key or name)
        text = str(error.msg or error).splitlines()[0]
        raise SpecError(key, _explain_reference(text, key)) from None


def set_log_level(config: Mapping[str, Any]) -> None:
    """Set the level of this process's log to `log_level`.

    Raises:
        SpecError: The level is unknown.
    """
    level = config.get("log_level")
    if level not in _LEVELS:
        raise SpecError("log_level", f"{level!r} is unknown (expected {', '.join(_LEVELS)})")
    logging.getLogger().setLevel(level)


def _explain_reference(text: str, key: str) -> str:
    variable = _MISSING_VARIABLE.search(text)
    if variable is None:
        return text
    return f"needs the environment variable {variable[1]} (expected it exported, or {key} set)"


def _check_command(command: list[str], folder: Path) -> None:
    if not command:
        raise SpecError("trainer.command", "[] is empty (expected a program and its arguments)")
    program = command[0]
    path = build_search_path(os.environ)
    if not (shutil.which(program, path=path) or shutil.which(folder / program)):
        raise SpecError(
            "trainer.command",
            f"{program!r} is not a program that can be run here (in {command!r})",
        )
    for argument in command[1:2]:
        if argument.endswith(".py") and not (folder / argument).is_file():
            raise SpecError("trainer.command", f"there is no file {argument!r} (in {command!r})")


def _check_function(function: str, trainer: TrainerSettings, folder: Path) -> None:
    if trainer.command:
        raise SpecError("trainer", "has both a command and a function (expected one of them)")
    if function.endswith(PICKLE_SUFFIX):
        if not (folder / function).is_file():
            raise SpecError("trainer.function", f"there is no file {function!r}")
        return
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", function):
        raise SpecError(
            "trainer.function",
            f"{function!r} is not module:function (for example my_project.train:main)",
        )
    # Searched, not imported: the worker imports the module in the environment of the trainings.
    module = function.split(":", maxsplit=1)[0].split(".", maxsplit=1)[0]
    python_path = trainer.env.get("PYTHONPATH", "").split(os.pathsep)
    # Absolute, because Python caches what `.` was.
    folders = [str(folder.absolute()), *filter(None, python_path), *sys.path]
    if PathFinder.find_spec(module, folders) is None:
        raise SpecError(
            "trainer.function",
            f"{function!r}: there is no module {module!r} in {str(folder)!r} "
            "or the environment (expected one that can be imported; trainer.cwd is its folder)",
        )
