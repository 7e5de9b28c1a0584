"""The composed Hydra config, checked section by section and typed.

A service reads only its own sections, so a mistake in a study never keeps the hub from starting.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trialbus.endpoint import resolve
from trialbus.errors import SpecError
from trialbus.security import HUB_KEY_VARIABLE, KEY_VARIABLE
from trialbus.spec import StudySpec, is_mapping, load_spec
from trialbus_services import base_config
from trialbus_services.search_space import explicit
from trialbus_services.worker import gpus
from trialbus_services.worker.handing import ParamsAs

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


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
        if self.slots < 0:
            raise ValueError(f"slots {self.slots} is below 0")
        gpus.check(self.gpus, self.gpus_per_trial)


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where reports are written."""

    dir: str


class Dashboard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where `trialbus dashboard` serves."""

    host: str = "127.0.0.1"
    port: int = 8052


_S = TypeVar("_S", Bus, Storage, Optimizer, Trainer, Worker, Report, Dashboard)


def section(config: DictConfig, name: str, type_: type[_S]) -> _S:
    """Return one section of the config, typed.

    Raises:
        SpecError: A key is unknown, missing or of the wrong type; names the key and the value.
    """
    data = _plain(config, name)
    try:
        found = msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise SpecError(f"{name}{path.rstrip('`')}", f"{problem} (in {data!r})") from None
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
        _check_function(found)
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


def _check_function(trainer: Trainer) -> None:
    if trainer.command:
        raise SpecError("trainer", "has both a command and a function (expected one of them)")
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", trainer.function or ""):
        raise SpecError(
            "trainer.function",
            f"{trainer.function!r} is not module:function (for example my_project.train:main)",
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


def register_resolvers() -> None:
    """Make `${trialbus.python:}` and `${trialbus.examples:<file>}` known to OmegaConf."""
    OmegaConf.register_new_resolver("trialbus.python", lambda: sys.executable, replace=True)
    OmegaConf.register_new_resolver("trialbus.examples", _example, replace=True)


def _example(name: str) -> str:
    """Return the path of an example: in the installed package, or in the checkout."""
    here = Path(__file__).parent
    installed = here / "examples"
    return str((installed if installed.is_dir() else here.parents[1] / "examples") / name)


def _plain(config: DictConfig, name: str, *, optional: bool = False) -> Any:
    try:
        data = (
            OmegaConf.to_container(config[name], resolve=True, throw_on_missing=True)
            if config[name]
            else None
        )
    except OmegaConfBaseException as error:
        raise SpecError(
            str(error.full_key or name), str(error.msg or error).splitlines()[0]
        ) from None
    if data is None and not optional:
        raise SpecError(name, "the section is empty")
    return data
