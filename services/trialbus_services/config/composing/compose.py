"""Composing the config of a command line, in this process and without side effects."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from trialbus.errors import SpecError
from trialbus_services.config.composing.errors import MISTAKES, ConfigError, explained, located
from trialbus_services.config.composing.provenance import Sources
from trialbus_services.config.composing.schema import register

VERSION_BASE = "1.3"
TREE = "pkg://trialbus_config"
PRIMARY = "config"


@dataclass(frozen=True)
class Composed:
    """A config and the command line it comes from.

    Attributes:
        config: The config, without the section `hydra`.
        arguments: Options and overrides that make another command compose the same.
    """

    config: DictConfig
    arguments: list[str]


@contextmanager
def composed(arguments: Sequence[str]) -> Generator[Composed]:
    """Compose a config, and say of errors in it where the values were set.

    Hydra's global state is that of the config within the block, and as it was after it: one block
    may stand in another, and all of them in an application of Hydra.

    Args:
        arguments: Overrides, and Hydra's `--config-dir`, `--config-name` and `--config-path`.

    Raises:
        ConfigError: The config cannot be composed; also in place of any `SpecError` that is raised
            within the block.

    Example:
        >>> with composed(["study.n_trials=8"]) as found:
        ...     found.config.study.n_trials
        8
    """
    options = parsed(arguments)
    name = options.config_name or PRIMARY
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    register()
    version.setbase(VERSION_BASE)
    hydra = Hydra.create_main_hydra2("trialbus", _search_path(options))
    sources = Sources(hydra.config_loader, name, options.overrides)
    try:
        try:
            config = hydra.compose_config(
                name, options.overrides, run_mode=RunMode.RUN, with_log_configuration=False
            )
        except (*MISTAKES, ValueError) as error:
            raise explained(error, sources) from None
        for key in sources.unset(config.hydra.runtime.choices):
            OmegaConf.update(config, key, "???", force_add=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        try:
            yield Composed(config, repeated(options, options.overrides))
        except ConfigError:
            raise
        except SpecError as error:
            raise located(error, config, sources) from None
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = before


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return arguments as Hydra's parser reads them, options and overrides in any order."""
    return get_args_parser().parse_intermixed_args(list(arguments))


def repeated(options: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """Return the arguments of a command that composes the same config."""
    named = {
        "--config-path": options.config_path,
        "--config-name": options.config_name,
        "--config-dir": options.config_dir,
    }
    return [*(f"{option}={value}" for option, value in named.items() if value), *overrides]


def _search_path(options: argparse.Namespace) -> ConfigSearchPath:
    path = options.config_path or TREE
    if "://" not in path:
        path = str(Path(path).absolute())
    found = create_config_search_path(path)
    if options.config_dir is not None:
        folder = Path(options.config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(
                "--config-dir",
                f"{options.config_dir!r} is not a folder (expected one with YAML files in it)",
                None,
            )
        found.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return found
