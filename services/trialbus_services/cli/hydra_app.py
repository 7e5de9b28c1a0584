"""Subcommands of `trialbus` as Hydra applications: overrides, `--cfg`, `-m` and completion."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trialbus.errors import TrialbusError
from trialbus_services.cli.multirun import check_jobs
from trialbus_services.config import composing
from trialbus_services.config.composed_config import ComposedConfig
from trialbus_services.config.secrets import mask_message, mask_secrets
from trialbus_services.process import exit_codes

#: Options of Hydra with a value.
_OPTIONS_WITH_VALUE = frozenset(
    {"--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn"}
    | {"--config-path", "-cp", "--package", "-p", "--info", "-i"}
)

#: Option that chooses the tree of configs, and the value of the option.
_TREE_OPTION = re.compile(r"(--config-(?:dir|name|path))[= ]+(\S+)\s+")


def run(name: str, arguments: Sequence[str], task: Callable[[ComposedConfig], int]) -> int:
    """Run a subcommand with the config of a command line and return the exit code.

    Hydra itself answers `--help`, `--cfg`, `--info` and `--shell-completion`, and runs
    `--multirun`. Secrets are masked in the answers, and in the file that `--multirun` writes.

    Args:
        name: Name of the subcommand, for Hydra's help.
        arguments: Arguments after the name.
        task: Function that is called with the config and returns the exit code.

    Raises:
        ConfigError: The config cannot be composed, or `task` raised a `SpecError`.
        TrialbusError: `task` raised this error.
    """
    options = composing.parse_arguments(arguments)
    is_answered_by_hydra = (
        options.help or options.hydra_help or options.info or options.shell_completion
    )
    if not (is_answered_by_hydra or options.cfg or options.multirun):
        with composing.compose_config(arguments) as composition:
            return task(composition)
    if options.cfg or options.help:
        with composing.compose_config(arguments):
            pass  # so that a mistake is reported as for every other command; remembers secrets
    if options.multirun and name == "study" and not is_answered_by_hydra:
        check_jobs(arguments)
    # Completion is installed for `trialbus` itself, not for `trialbus study`.
    sys.argv[0] = "trialbus" if options.shell_completion else f"trialbus {name}"
    if not (options.cfg or options.help):
        return _run_hydra(arguments, task)
    answer = io.StringIO()
    try:
        with contextlib.redirect_stdout(answer):
            return _run_hydra(arguments, task)
    finally:
        text = answer.getvalue()
        print(_mask_yaml(text, options.package) if options.cfg else mask_message(text), end="")


def complete(commands: Iterable[str], applications: Iterable[str], arguments: list[str]) -> int:
    """Print the completions of the command line in `$COMP_LINE` and return the exit code.

    A subcommand is completed here, the overrides of a subcommand by Hydra.

    Args:
        commands: Names of all subcommands.
        applications: Names of the subcommands that are Hydra applications.
        arguments: `--shell-completion query=<shell>`, or `install=<shell>`.
    """
    line = os.environ.get("COMP_LINE", "")
    if arguments[1:] and arguments[1].startswith("query="):
        typed = line.split()
        prefix = "" if line.endswith(" ") or not typed[1:] else typed[-1]
        if len(typed) - bool(prefix) < 2:
            print(" ".join(command for command in commands if command.startswith(prefix)))
            return exit_codes.DONE
        if typed[1] not in applications:
            return exit_codes.DONE
        overrides = line[line.index(typed[1], len(typed[0])) + len(typed[1]) :].lstrip()
        # Hydra completes overrides only; the tree is chosen by options before them.
        arguments = [
            *arguments,
            *(f"{option[1]}={option[2]}" for option in _TREE_OPTION.finditer(overrides)),
        ]
        os.environ["COMP_LINE"] = f"trialbus {_TREE_OPTION.sub('', overrides)}"
    sys.argv[0] = "trialbus"
    return _run_hydra(arguments, lambda _: 0)


def _run_hydra(arguments: Sequence[str], task: Callable[[ComposedConfig], int]) -> int:
    codes = [exit_codes.DONE]

    def run_job(config: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _mask_file(Path(HydraConfig.get().sweep.dir) / "multirun.yaml")
        options = composing.parse_arguments(arguments)
        overrides = HydraConfig.get().overrides.task
        try:
            codes.append(
                task(ComposedConfig(config, composing.format_arguments(options, overrides)))
            )
        except TrialbusError as error:
            print(f"error: {mask_message(str(error))}", file=sys.stderr)
            codes.append(exit_codes.get_error_code(error))

    composing.register()
    hydra_arguments = composing.list_hydra_arguments(arguments)
    sys.argv = [sys.argv[0], *_move_options_first(hydra_arguments)]
    hydra.main(
        version_base=composing.VERSION_BASE,
        config_path=composing.TREE,
        config_name=composing.PRIMARY,
    )(run_job)()
    return max(codes)


def _mask_yaml(text: str, package: str | None) -> str:
    """Return YAML that Hydra printed with secrets masked.

    Args:
        text: The YAML, as `OmegaConf.to_yaml` writes it.
        package: Dotted path of the YAML in the config; None for the whole config.
    """
    key = "" if package in (None, "_global_") else package
    config = OmegaConf.create(text)
    if not OmegaConf.is_config(config) or not config:
        return mask_message(text)
    data = OmegaConf.to_container(config)
    masked = mask_secrets(data, key)
    if masked == data:
        return text
    header = f"# @package {key}\n" if key else ""
    return header + OmegaConf.to_yaml(OmegaConf.create(masked))


def _mask_file(path: Path) -> None:
    """Mask the secrets of a YAML file, if there is one."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        path.write_text(_mask_yaml(text, None), encoding="utf-8")


def _move_options_first(arguments: Sequence[str]) -> list[str]:
    """Return arguments with options before overrides, the only order that Hydra's parser takes."""
    options: list[str] = []
    overrides: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument.startswith("-"):
            options.append(argument)
            if argument in _OPTIONS_WITH_VALUE:
                options += [value for value in [next(remaining, None)] if value is not None]
        else:
            overrides.append(argument)
    return options + overrides
