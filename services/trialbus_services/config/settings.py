"""The composed Hydra config, checked section by section and typed.

A service reads only its own sections, so a mistake in a study never keeps the hub from starting.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from trialbus.callbacks import CallbackFactory
from trialbus.errors import SpecError
from trialbus.protocol.endpoint import resolve
from trialbus.protocol.security import HUB_KEY_VARIABLE, KEY_VARIABLE
from trialbus.study.spec import StudySpec, check_keys, is_mapping, load_spec
from trialbus.study.validation import convert
from trialbus_services.config import base_config
from trialbus_services.config.report_options import Options
from trialbus_services.config.search_space import explicit
from trialbus_services.process import gpus

_LEAST_TOKEN = 16  # characters that nobody tries one by one
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

#: Overrides of Hydra, `--name=value`, environment variables, or a JSON file.
ParamsAs: TypeAlias = Literal["overrides", "flags", "environment", "file"]


class Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CURVE keys: a folder of them, and which one is whose."""

    dir: str
    hub: str = "hub"
    service: str = "service"
    trainer: str = "trainer"

    def path(self, name: str) -> str:
        """Return the absolute path of a key file."""
        return str((Path(self.dir) / f"{name}.key").absolute())

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables under which clients find a key, and the hub's."""
        hub = (Path(self.dir) / f"{self.hub}.pub").absolute()
        return {KEY_VARIABLE: self.path(name), HUB_KEY_VARIABLE: str(hub)}


class Bus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the hub is and how it keeps its log."""

    endpoint: str
    dir: str
    sync: Literal["full", "normal"] = "full"
    insecure: bool = False
    connect_s: float = 10.0
    keep_finished_s: float | None = None
    keys: Keys | None = None

    def __post_init__(self) -> None:
        for name in ("connect_s", "keep_finished_s"):
            seconds = getattr(self, name)
            if seconds is not None and seconds < 0:
                raise ValueError(f"{name} {seconds:g} is below 0 (expected seconds)")

    @property
    def logs(self) -> Path:
        """Where services and trials write what they print."""
        return Path(self.dir) / "logs"

    @property
    def runs(self) -> Path:
        """Where trials have a folder of their own."""
        return Path(self.dir) / "runs"


class Storage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where studies are recorded."""

    url: str


class Optimizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the optimizer suggests and records."""

    ahead: int = 1
    record_every_s: float = 0.25
    max_points: int | None = None

    def __post_init__(self) -> None:
        if self.ahead < 0:
            raise ValueError(f"ahead {self.ahead} is below 0 (expected a number of suggestions)")
        if self.record_every_s <= 0:
            raise ValueError(f"record_every_s {self.record_every_s:g} is not above zero")
        if self.max_points is not None and self.max_points < 2:
            raise ValueError(
                f"max_points {self.max_points} is below 2 (expected 2 or more, or null)"
            )


class Trainer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker runs for a trial: a program, or a function in a warm process."""

    command: list[str] = []
    arguments: list[str] = []
    params_as: ParamsAs = "environment"
    function: str | None = None
    env: dict[str, str] = {}
    cwd: str | None = None


class Worker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a worker runs trials."""

    name: str | None = None
    slots: int = 2
    grace_s: float = 5.0
    ttl_s: float = 10.0
    gpus: int | list[int | str] | Literal["auto"] | None = None
    gpus_per_trial: float = 1.0

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"slots {self.slots} is below 1 (expected a number of trials)")
        if self.grace_s < 0:
            raise ValueError(f"grace_s {self.grace_s:g} is below 0 (expected seconds)")
        if self.ttl_s <= 0:
            raise ValueError(f"ttl_s {self.ttl_s:g} is not above zero (expected seconds)")
        gpus.check(self.gpus, self.gpus_per_trial)


class Launcher(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who runs the trials of a study that is started here."""

    worker: bool = True


class Report(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where reports are written, and what they consist of."""

    dir: str


class Monitor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the live page is served, and to whom."""

    host: str = "127.0.0.1"
    port: int = 8053
    token: str | None = None

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError("host is empty (expected an address, for example 127.0.0.1)")
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port {self.port} is not a port (expected 0 to 65535)")
        if self.token is not None and len(self.token) < _LEAST_TOKEN:
            raise ValueError(f"token is too short (expected {_LEAST_TOKEN} characters or more)")


class Dashboard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where `trialbus dashboard` serves."""

    host: str = "127.0.0.1"
    port: int = 8052


#: The sections that are made of one type each.
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "bus": Bus,
    "storage": Storage,
    "optimizer": Optimizer,
    "trainer": Trainer,
    "worker": Worker,
    "launcher": Launcher,
    "report": Report,
    "monitor": Monitor,
    "dashboard": Dashboard,
}

_S = TypeVar("_S", bound=msgspec.Struct)


def section(config: DictConfig, name: str, type_: type[_S]) -> _S:
    """Return one section of the config, typed.

    Raises:
        SpecError: A key is unknown, missing or of the wrong type; names the key and the value.
    """
    found: _S = convert(name, _plain(config, name), type_)
    return found


def bus(config: DictConfig) -> Bus:
    """Return the section `bus` with its endpoint made absolute."""
    found = section(config, "bus", Bus)
    return msgspec.structs.replace(found, endpoint=resolve(found.endpoint))


def study(config: DictConfig) -> StudySpec:
    """Return the study with its sampler and pruner.

    Raises:
        SpecError: See `trialbus.load_spec`.
    """
    # Before what is missing: that may be there under a misspelt name.
    check_keys(map(str, config.get("study") or ()))
    found = _plain(config, "study")
    if is_mapping(found) and is_mapping(found.get("params")):
        found = {**found, "params": explicit(found["params"])}
    if is_mapping(found) and "base_config" in found:
        found = {**found, "base_config": base_config.read(found["base_config"])}
    return load_spec(
        found,
        sampler=_plain(config, "sampler"),
        pruner=_plain(config, "pruner", optional=True),
    )


def trainer(config: DictConfig) -> Trainer:
    """Return the section `trainer`.

    Raises:
        SpecError: As `section` does, or the program does not exist.
    """
    found = section(config, "trainer", Trainer)
    folder = Path(found.cwd or ".")
    if not folder.is_dir():
        raise SpecError("trainer.cwd", f"{found.cwd!r} is not a folder")
    if found.function is None:
        _check_command(found, folder)
    else:
        _check_function(found, folder)
    return found


def callbacks(config: DictConfig) -> dict[str, Any]:
    """Return the section `callbacks`, which only a training can build.

    Raises:
        SpecError: See `trialbus.callbacks.CallbackFactory`.
    """
    found = _plain(config, "callbacks")
    CallbackFactory(found)
    return found


def _check_command(trainer: Trainer, folder: Path) -> None:
    command = trainer.command
    if not command:
        raise SpecError("trainer.command", "[] is empty (expected a program and its arguments)")
    program = command[0]
    if not (shutil.which(program) or shutil.which(folder / program)):
        raise SpecError(
            "trainer.command",
            f"{program!r} is not a program that can be run here (in {command!r})",
        )
    for argument in command[1:2]:
        if argument.endswith(".py") and not (folder / argument).is_file():
            raise SpecError("trainer.command", f"there is no file {argument!r} (in {command!r})")


def _check_function(trainer: Trainer, folder: Path) -> None:
    if trainer.command:
        raise SpecError("trainer", "has both a command and a function (expected one of them)")
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", trainer.function or ""):
        raise SpecError(
            "trainer.function",
            f"{trainer.function!r} is not module:function (for example my_project.train:main)",
        )
    # Looked for, and not imported: that is for the worker, in the environment of the trainings.
    module = (trainer.function or "").split(":")[0].split(".")[0]
    more = trainer.env.get("PYTHONPATH", "").split(os.pathsep)
    if PathFinder.find_spec(module, [str(folder), *filter(None, more), *sys.path]) is None:
        raise SpecError(
            "trainer.function",
            f"{trainer.function!r}: there is no module {module!r} in {str(folder)!r} "
            "or the environment (expected one that can be imported; trainer.cwd is its folder)",
        )


def set_log_level(config: DictConfig) -> None:
    """Let the log of this process tell as much as `log_level` says.

    Raises:
        SpecError: It is no level.
    """
    level = config.get("log_level")
    if level not in _LEVELS:
        raise SpecError("log_level", f"{level!r} is unknown (expected {', '.join(_LEVELS)})")
    logging.getLogger().setLevel(level)


def _plain(config: DictConfig, name: str, *, optional: bool = False) -> Any:
    try:
        # An empty mapping is what the schema has where nothing was chosen.
        section = config.get(name)
        data = (
            OmegaConf.to_container(section, resolve=True, throw_on_missing=True)
            if section
            else None
        )
    except MissingMandatoryValue as error:
        raise SpecError(
            str(error.full_key), "has no value yet (??? stands for one that has to be given)"
        ) from None
    except OmegaConfBaseException as error:
        raise SpecError(
            str(error.full_key or name), str(error.msg or error).splitlines()[0]
        ) from None
    if data is None and not optional:
        raise SpecError(name, "the section is empty")
    return data
