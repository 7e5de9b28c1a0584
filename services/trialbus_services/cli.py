"""The `trialbus` command. Every script in `scripts/` calls into it.

Each subcommand is a Hydra application on the same config tree, so overrides, `--cfg job`,
`--config-dir` and shell completion work as Hydra users expect.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import version

import hydra
from omegaconf import DictConfig

from trialbus.errors import (
    HubRefusedError,
    LogError,
    LogInUseError,
    SpecError,
    TrialbusError,
)
from trialbus_services import settings
from trialbus_services.children import ALREADY_SERVED, WRONG_INPUT, stop_with_parent

_USAGE = """\
usage: trialbus COMMAND [HYDRA OVERRIDES | OPTIONS]

commands:
  study      run a study: uses the services that are up, starts the others, shows progress
  hub        the bus's hub, which keeps the event log
  optimizer  the Optuna service: hands out trials, records evaluations, prunes
  worker     runs trials, each as a process of its own
  reporter   writes a report when a study finishes
  dashboard  serves Optuna's own dashboard on the storage

  events     prints the events of a bus: trialbus events --study digits --follow
  status     prints the state of a hub: offset, rate, sessions, lag of every durable name
  forget     removes a finished study's events from the log: trialbus forget digits
  metrics    serves a hub's counters to Prometheus: trialbus metrics --port 9464
  keys       makes keys for a bus that strangers can reach: trialbus keys --help

examples:
  trialbus study study=digits study.n_trials=8 pruner=none
  trialbus worker study=digits worker.slots=4 bus.endpoint=tcp://127.0.0.1:5760
  trialbus study --cfg job      print the composed config and stop
  trialbus study --help         groups and values that can be overridden
"""


#: Options of Hydra that are followed by a value.
_WITH_VALUE = frozenset(
    {"--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn"}
    | {"--config-path", "-cp", "--package", "-p"}
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 failed, 2 wrong input, 3 another one serves already, 130 interrupted.
    """
    arguments = sys.argv[1:] if argv is None else argv
    match arguments:
        case [] | ["-h" | "--help", *_]:
            print(_USAGE)
            return 0 if arguments else WRONG_INPUT
        case ["--version", *_]:
            print(version("trialbus"))
            return 0
        case [name, *overrides] if name in _COMMANDS:
            return _run(name, overrides)
        case [name, *options] if name in _TOOLS:
            return _tool(name, options)
        case [name, *_]:
            near = difflib.get_close_matches(name, [*_COMMANDS, *_TOOLS], n=1)
            hint = (
                f"; did you mean {near[0]!r}?"
                if near
                else f" (expected one of {', '.join([*_COMMANDS, *_TOOLS])})"
            )
            print(f"error: there is no command {name!r}{hint}", file=sys.stderr)
            return WRONG_INPUT
        case _:
            raise AssertionError(arguments)


def _run(name: str, overrides: list[str]) -> int:
    codes: list[int] = []
    settings.register_resolvers()
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {name} %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("hydra").setLevel(logging.WARNING)

    def task(config: DictConfig) -> None:
        try:
            settings.set_log_level(config)
            keys = settings.bus(config).keys
            if keys is not None:
                # Every link of this process, and of the services it starts, finds them there.
                os.environ.update(keys.environment(keys.service))
            codes.append(_COMMANDS[name](config))
        except TrialbusError as error:
            print(f"error: {error}", file=sys.stderr)
            codes.append(_exit_code(error))

    stop_with_parent()
    sys.argv = [f"trialbus {name}", *_options_first(overrides)]
    application = hydra.main(
        version_base="1.3", config_path="pkg://trialbus_config", config_name="config"
    )(task)
    try:
        application()
    except KeyboardInterrupt:
        return 130
    # Hydra ran no task for --help, --cfg and the like.
    return codes[0] if codes else 0


def _options_first(arguments: list[str]) -> list[str]:
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


def _tool(name: str, options: list[str]) -> int:
    try:
        if name == "metrics":
            from trialbus_services.metrics import metrics

            return metrics(options)
        from trialbus_services import keys, look

        tools = {
            "events": look.events,
            "status": look.status,
            "forget": look.forget,
            "keys": keys.keys,
        }
        return tools[name](options)
    except ModuleNotFoundError as error:
        print(f'error: {error}; pip install "trialbus[{name}]"', file=sys.stderr)
        return 1
    except TrialbusError as error:
        print(f"error: {error}", file=sys.stderr)
        return _exit_code(error)


def _exit_code(error: TrialbusError) -> int:
    if isinstance(error, LogInUseError | HubRefusedError):
        return ALREADY_SERVED
    return WRONG_INPUT if isinstance(error, SpecError | LogError) else 1


def _hub(config: DictConfig) -> int:
    from trialbus.hub import Hub, serve
    from trialbus.security import Gatekeeper

    bus = settings.bus(config)
    gatekeeper = Gatekeeper(bus.keys.dir, bus.keys.hub) if bus.keys else None
    hub = Hub(
        bus.endpoint,
        bus.dir,
        sync=bus.sync,
        gatekeeper=gatekeeper,
        insecure=bus.insecure,
        keep_finished_s=bus.keep_finished_s,
    )
    serve(hub)
    return 0


def _optimizer(config: DictConfig) -> int:
    from trialbus_services.optimizer.main import run

    return run(
        settings.bus(config),
        settings.section(config, "storage", settings.Storage),
        settings.section(config, "optimizer", settings.Optimizer),
    )


def _worker(config: DictConfig) -> int:
    from trialbus_services.worker.main import run

    worker = settings.section(config, "worker", settings.Worker)
    if not worker.slots:
        raise SpecError("worker.slots", "0 runs no trial (expected 1 or more)")
    return run(
        settings.bus(config),
        worker,
        settings.trainer(config),
        study=settings.study(config).name,
    )


def _reporter(config: DictConfig) -> int:
    from trialbus_services.reporter.main import run

    return run(
        settings.bus(config),
        settings.section(config, "storage", settings.Storage),
        settings.section(config, "report", settings.Report),
    )


def _dashboard(config: DictConfig) -> int:
    from trialbus_services.dashboard import run

    return run(
        settings.section(config, "storage", settings.Storage),
        settings.section(config, "dashboard", settings.Dashboard),
    )


def _study(config: DictConfig) -> int:
    from trialbus_services.phases import run

    return run(config)


_TOOLS = ("events", "status", "forget", "keys", "metrics")
_COMMANDS: dict[str, Callable[[DictConfig], int]] = {
    "study": _study,
    "hub": _hub,
    "optimizer": _optimizer,
    "worker": _worker,
    "reporter": _reporter,
    "dashboard": _dashboard,
}
