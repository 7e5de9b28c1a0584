"""Composing the config of a command line, in this process and without side effects."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Container, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from trialbus.errors import SpecError
from trialbus.study.validation import format_expected
from trialbus_services.config.composed_config import ComposedConfig
from trialbus_services.config.composing.errors import (
    COMPOSE_ERRORS,
    SEARCH_PATH_WARNING,
    ConfigError,
    add_source,
    check_added_keys,
    explain_error,
    explain_search_path,
)
from trialbus_services.config.composing.override_check import check_overrides
from trialbus_services.config.composing.provenance import ConfigSources
from trialbus_services.config.composing.replaced_class import drop_replaced_arguments
from trialbus_services.config.composing.schema import register
from trialbus_services.config.composing.study_file import (
    KNOWN_KEYS,
    STUDY_FILE,
    find_study_file,
    is_study_file,
    read_study_file,
    store_study_file,
)
from trialbus_services.config.secrets import remember_secrets

VERSION_BASE = "1.3"
TREE = "pkg://trialbus_config"
PRIMARY = "config"

#: Options of a command with a config, for an error about another one.
_OPTIONS = (
    *("--dry-run", "--help", "--cfg", "--info", "--config-dir", "--config-name", "--config-path"),
    *("--package", "--resolve", "--multirun", "-v"),
)


@contextmanager
def compose_config(
    arguments: Sequence[str],
    *,
    given: Container[str] = (),
    place: str = "on the command line",
) -> Generator[ComposedConfig]:
    """Compose a config, and name in errors of the block where the values were set.

    Within the block Hydra's global state is that of the config, and afterwards as it was before:
    blocks can be nested, and used in an application of Hydra.

    Args:
        arguments: Overrides, a study file, and Hydra's `--config-dir`, `--config-name` and
            `--config-path`.
        given: Sections that the caller has from elsewhere: errors of the block about their values
            name no source.
        place: Where the arguments stand, for errors.

    Raises:
        ConfigError: The config cannot be composed; also in place of any `SpecError` that is raised
            within the block.

    Example:
        >>> with compose_config(["study.n_trials=8"]) as composed:
        ...     composed.config.study.n_trials
        8
    """
    options = parse_arguments(arguments)
    check_overrides(options.overrides)
    name, files = options.config_name or PRIMARY, dict[str, Path]()
    state_before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    store, base = ConfigStore.instance(), version.VersionBase.instance()
    # A plugin of Hydra that is found now may register a group, which stays.
    configs_before = {n: c for n, c in store.repo.items() if n.endswith(".yaml")}
    base_before = base.version_base
    GlobalHydra.instance().clear()
    register()
    if options.study_file is not None:
        store_study_file(read_study_file(options.study_file))
        files[STUDY_FILE] = options.study_file
    version.setbase(VERSION_BASE)
    hydra = Hydra.create_main_hydra2("trialbus", _build_search_path(options))
    sources = ConfigSources(hydra.config_loader, name, options.overrides, files, place)
    try:
        try:
            with warnings.catch_warnings():
                # Hydra goes on without a folder of `hydra.searchpath` that is not there.
                warnings.filterwarnings("error", SEARCH_PATH_WARNING, UserWarning)
                config = hydra.compose_config(
                    name, options.overrides, run_mode=RunMode.RUN, with_log_configuration=False
                )
        except UserWarning as warning:
            raise explain_search_path(warning, sources) from None
        except (*COMPOSE_ERRORS, ValueError) as error:
            raise explain_error(error, sources) from None
        for key in sources.list_missing(config.hydra.runtime.choices):
            OmegaConf.update(config, key, "???", force_add=True)
        drop_replaced_arguments(config, hydra.config_loader)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        remember_secrets(OmegaConf.to_container(config))
        check_added_keys(config, options.overrides, KNOWN_KEYS | {"notify"}, place)
        try:
            yield ComposedConfig(config, format_arguments(options, options.overrides))
        except ConfigError:
            raise
        except SpecError as error:
            if re.split(r"[.\[]", error.key)[0] in given:
                raise
            raise add_source(error, config, sources) from None
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = state_before
        base.version_base = base_before
        groups = {n: c for n, c in store.repo.items() if not n.endswith(".yaml")}
        store.repo = {**groups, **configs_before}


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse arguments with Hydra's parser, options and overrides in any order.

    Returns:
        Options of Hydra, and `study_file`, the path of a study file among the overrides, or None.

    Raises:
        ConfigError: There is no such option, or there are several study files, or one beside
            `--config-name`.
    """
    parser = get_args_parser()
    parser.error = _refuse_option
    options = parser.parse_intermixed_args(list(arguments))
    if options.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun",
            f"{options.experimental_rerun!r}: a study is run again by its own command "
            "(expected no such option)",
            None,
        )
    options.study_file = find_study_file(options.overrides)
    options.overrides = [text for text in options.overrides if not is_study_file(text)]
    if options.study_file is not None:
        if options.config_name is not None:
            raise ConfigError(
                "--config-name",
                f"{options.config_name!r} beside {str(options.study_file)!r} (expected either)",
                None,
            )
        options.config_name = STUDY_FILE
    return options


def _refuse_option(message: str) -> NoReturn:
    """Raise what `argparse` says of an option, with the nearest option in place of its usage."""
    _, _, option = message.partition("unrecognized arguments: ")
    hint = format_expected(option.split()[0], _OPTIONS) if option else ""
    problem = f"there is no option {option!r}" if option else message
    raise ConfigError("command line", f"{problem}{hint}", None)


def list_hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments for `hydra.main`, which knows a study file as a config of its store.

    Raises:
        ConfigError: See `parse_arguments` and `read_study_file`.
    """
    file = parse_arguments(arguments).study_file
    if file is None:
        return list(arguments)
    store_study_file(read_study_file(file))
    return [
        f"--config-name={STUDY_FILE}",
        *(argument for argument in arguments if not is_study_file(argument)),
    ]


def format_arguments(options: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """Return the arguments with which another command composes the same config."""
    file = options.study_file
    options_by_name = {
        "--config-path": options.config_path,
        "--config-name": None if file else options.config_name,
        "--config-dir": options.config_dir,
    }
    return [
        *([str(file)] if file else ()),
        *(f"{name}={value}" for name, value in options_by_name.items() if value),
        *overrides,
    ]


def _build_search_path(options: argparse.Namespace) -> ConfigSearchPath:
    path = options.config_path or TREE
    if "://" not in path:
        path = str(Path(path).absolute())
    search_path = create_config_search_path(path)
    if options.config_dir is not None:
        folder = Path(options.config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(
                "--config-dir",
                f"{options.config_dir!r} is not a folder (expected a folder of YAML files)",
                None,
            )
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return search_path
