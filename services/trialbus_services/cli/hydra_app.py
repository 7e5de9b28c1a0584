"""A subcommand of `trialbus` as a Hydra application: overrides, `--cfg`, `-m` and completion."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trialbus.errors import TrialbusError
from trialbus_services.config import composing
from trialbus_services.config.composing import Composed
from trialbus_services.process import exit_codes

#: Options of Hydra that are followed by a value.
_WITH_VALUE = frozenset(
    {"--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn"}
    | {"--config-path", "-cp", "--package", "-p", "--info", "-i"}
)

#: An option that says which tree of configs it is about, and its value.
_TREE = re.compile(r"(--config-(?:dir|name|path))[= ]+(\S+)\s+")


def run(name: str, arguments: Sequence[str], task: Callable[[Composed], int]) -> int:
    """Run a subcommand with the config of its command line and return the exit code.

    Hydra itself answers `--help`, `--cfg`, `--info` and `--shell-completion`, and runs
    `--multirun`.

    Args:
        name: Of the subcommand, for Hydra's help.
        arguments: What follows it.
        task: What to do with the config.

    Raises:
        ConfigError: The config cannot be composed, or `task` raised a `SpecError`.
        TrialbusError: `task` raised it.
    """
    options = composing.parsed(arguments)
    shows = options.help or options.hydra_help or options.info or options.shell_completion
    if not (shows or options.cfg or options.multirun):
        with composing.composed(arguments) as found:
            return task(found)
    if options.cfg:
        with composing.composed(arguments):
            pass  # a mistake is answered as everywhere
    # What completion is installed for is the command, not `trialbus study`.
    sys.argv[0] = "trialbus" if options.shell_completion else f"trialbus {name}"
    return _by_hydra(arguments, task)


def complete(commands: Iterable[str], applications: Iterable[str], arguments: list[str]) -> int:
    """Answer a shell that completes a command line: subcommands, then what Hydra knows.

    Args:
        commands: All subcommands.
        applications: Those that are Hydra applications.
        arguments: `--shell-completion query=<shell>`, or `install=<shell>`.
    """
    line = os.environ.get("COMP_LINE", "")
    if arguments[1:] and arguments[1].startswith("query="):
        words = line.split()
        begun = "" if line.endswith(" ") or not words[1:] else words[-1]
        if len(words) - bool(begun) < 2:
            print(" ".join(command for command in commands if command.startswith(begun)))
            return exit_codes.DONE
        if words[1] not in applications:
            return exit_codes.DONE
        rest = line[line.index(words[1], len(words[0])) + len(words[1]) :].lstrip()
        # Hydra looks at the overrides alone; what is offered depends on the tree, too.
        arguments = [*arguments, *(f"{found[1]}={found[2]}" for found in _TREE.finditer(rest))]
        os.environ["COMP_LINE"] = f"trialbus {_TREE.sub('', rest)}"
    sys.argv[0] = "trialbus"
    return _by_hydra(arguments, lambda found: 0)


def _by_hydra(arguments: Sequence[str], task: Callable[[Composed], int]) -> int:
    codes = [0]

    def run_job(config: DictConfig) -> None:
        options = composing.parsed(arguments)
        overrides = HydraConfig.get().overrides.task
        try:
            codes.append(task(Composed(config, composing.repeated(options, overrides))))
        except TrialbusError as error:
            print(f"error: {error}", file=sys.stderr)
            codes.append(1)

    composing.register()
    sys.argv = [sys.argv[0], *_options_first(arguments)]
    hydra.main(
        version_base=composing.VERSION_BASE,
        config_path=composing.TREE,
        config_name=composing.PRIMARY,
    )(run_job)()
    return max(codes)


def _options_first(arguments: Sequence[str]) -> list[str]:
    """Return arguments with Hydra's options before the overrides: its parser takes no others."""
    options: list[str] = []
    overrides: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument.startswith("-"):
            options.append(argument)
            if argument in _WITH_VALUE:
                options += [value for value in [next(waiting, None)] if value is not None]
        else:
            overrides.append(argument)
    return options + overrides
