"""The `trialbus` command: the table of subcommands and the errors of a command line.

Commands that need a config are Hydra applications on the same config tree, so that overrides,
`--cfg job`, `--config-dir` and shell completion work as Hydra users expect.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from trialbus.errors import HubUnavailableError, SpecError, TrialbusError
from trialbus.protocol.endpoint import find_endpoint_source
from trialbus.study.validation import format_expected
from trialbus_services.cli.help import format_help
from trialbus_services.cli.options import is_used, name_option, name_source
from trialbus_services.config import sections, settings
from trialbus_services.config.composed_config import ComposedConfig
from trialbus_services.config.secrets import MaskingFormatter, mask_message, remember_secrets
from trialbus_services.process import exit_codes
from trialbus_services.process.child import join_parent

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

_USAGE = """\
usage: trialbus COMMAND [HYDRA OVERRIDES | OPTIONS]

commands:
  study      run a study: use the services that are up, start the others, show progress
  hub        serve the bus and keep the event log
  optimizer  hand out trials, record evaluations and prune, with Optuna
  worker     run trials, each in a process of its own
  reporter   write a report when a study finishes, and send notifications
  monitor    serve a live page about studies: trialbus monitor monitor.port=8053
  dashboard  serve Optuna's own dashboard on the storage

  init       look at a training script and write a first study file: trialbus init train.py
  best       print the best params, to put into the next command: trialbus best digits
  report     write the report of a study now: trialbus report digits
  watch      show a running study in any terminal: trialbus watch digits
  events     print the events of a bus: trialbus events --study digits --follow
  status     print the state of a hub: offset, rate, sessions, lag of durable names
  forget     remove a finished study's events from the log: trialbus forget digits
  log        say what is damaged in a log, and repair it: trialbus log check
  metrics    serve a hub's counters to Prometheus: trialbus metrics --port 9464
  keys       make keys for a bus that other machines can reach: trialbus keys --help

examples:
  trialbus study study=digits study.n_trials=8 pruner=none
  trialbus worker study=digits worker.slots=4 bus.endpoint=tcp://127.0.0.1:5760
  trialbus study --dry-run      check everything, print space and first command, and stop
  trialbus study --cfg job      print the composed config and stop
  trialbus study --help         what the command does, and its settings
  eval "$(trialbus study --shell-completion install=bash)"
"""

#: Commands that do not connect to a hub.
_HELP = frozenset({"-h", "--help"})
_COMMANDS_WITHOUT_CLIENT = frozenset({"hub", "dashboard"})

#: Option of `trialbus study`, and option with which `--dry-run` and `--help` print all they have.
DRY_RUN, VERBOSE = "--dry-run", "-v"


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return the exit code, from `exit_codes`."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    match arguments:
        case [] | ["-h" | "--help", *_]:
            print(_USAGE)
            return exit_codes.DONE if arguments else exit_codes.WRONG_INPUT
        case ["--version", *_]:
            from importlib.metadata import version

            print(version("trialbus"))
            return exit_codes.DONE
        case ["-sc" | "--shell-completion", *_]:
            from trialbus_services.cli import hydra_app

            return hydra_app.complete([*COMMANDS, *TOOLS], COMMANDS, arguments)
        case [name, *overrides] if name in COMMANDS:
            return _run_command(name, overrides)
        case [name, *options] if name in TOOLS:
            return _run_tool(name, options)
        case [name, *_]:
            hint = format_expected(name, [*COMMANDS, *TOOLS])
            print(f"error: there is no command {name!r}{hint}", file=sys.stderr)
            return exit_codes.WRONG_INPUT
        case _:
            raise AssertionError(arguments)


def _asks_for_help(options: list[str]) -> bool:
    return bool(_HELP & set(options)) and VERBOSE not in options


def _run_command(name: str, arguments: list[str]) -> int:
    if _asks_for_help(arguments):
        print(format_help(name))
        return exit_codes.DONE
    if not any(argument.startswith(("--info", "-i")) for argument in arguments):  # logged by Hydra
        _configure_logging(name)
        logging.getLogger("hydra").setLevel(logging.WARNING)
    arguments, config = join_parent(arguments)
    command, arguments = _choose_command(name, arguments)

    def serve(composition: ComposedConfig) -> int:
        sections.set_log_level(composition.config)
        keys = sections.read_bus(composition.config).keys
        if keys is not None:
            if name not in _COMMANDS_WITHOUT_CLIENT:
                sections.check_keys_exist(keys, name)
            # Where every link of this process, and of the services that it starts, looks for keys.
            os.environ.update(keys.environment(keys.get_name(name)))
        return command(composition)

    try:
        if config is None:
            return _compose_and_run(name, arguments, serve)
        return _run_composed(name, ComposedConfig(cast("DictConfig", config), arguments), serve)
    except HubUnavailableError as error:
        source = find_endpoint_source(error.endpoint) or "bus.endpoint"
        return _print_error(name_source(error, source))
    except (TrialbusError, OSError) as error:
        return _print_error(error)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def _choose_command(
    name: str, arguments: list[str]
) -> tuple[Callable[[ComposedConfig], int], list[str]]:
    """Return the function of a command line, and the arguments without this module's options."""
    is_dry_run = name == "study" and DRY_RUN in arguments
    if not (is_dry_run or _HELP & set(arguments)):
        return COMMANDS[name], arguments
    others = [argument for argument in arguments if argument not in (DRY_RUN, VERBOSE)]
    command = partial(_dry_run, is_verbose=VERBOSE in arguments) if is_dry_run else COMMANDS[name]
    return command, others


def _run_composed(
    name: str, composed: ComposedConfig, task: Callable[[ComposedConfig], int]
) -> int:
    """Run a service with the config of its launcher."""
    remember_secrets(composed.config)
    try:
        return task(composed)
    except SpecError as error:  # composed here as well, the error names the source of the value
        return _compose_and_run(name, composed.arguments, _raise(error))


def _compose_and_run(name: str, arguments: list[str], task: Callable[[ComposedConfig], int]) -> int:
    # Not imported in a service that got its config from a launcher.
    from trialbus_services.cli import hydra_app

    return hydra_app.run(name, arguments, task)


def _raise(error: Exception) -> Callable[[ComposedConfig], int]:
    """Return a task that raises an error."""

    def task(_: ComposedConfig) -> int:
        raise error

    return task


def _configure_logging(name: str) -> None:
    """Log to standard error, uncaught exceptions included, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter(f"%(asctime)s {name} %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])

    def log_exception(type_: type[BaseException], error: BaseException, trace: Any) -> None:
        logger.critical("ended by an error", exc_info=(type_, error, trace))

    sys.excepthook = log_exception
    threading.excepthook = lambda args: (
        log_exception(args.exc_type, args.exc_value, args.exc_traceback)
        if args.exc_value is not None and args.exc_type is not SystemExit
        else None
    )


def _run_tool(name: str, options: list[str]) -> int:
    try:
        tool: Callable[[list[str]], int] = pkgutil.resolve_name(TOOLS[name])
        return tool(options)
    except ModuleNotFoundError as error:
        # The one command with an extra of its name; what all commands need is another extra.
        extra = name if name == "metrics" else "services"
        print(f'error: {error}; pip install "trialbus[{extra}]"', file=sys.stderr)
        return exit_codes.FAILED
    except SpecError as error:
        return _print_error(name_option(error, options))
    except HubUnavailableError as error:
        source = "--endpoint" if is_used("--endpoint", options) else error.source
        return _print_error(name_source(error, source))
    except (TrialbusError, OSError) as error:
        return _print_error(error)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def _print_error(error: TrialbusError | OSError) -> int:
    """Print an error on a single line and return the exit code.

    Raises:
        OSError: The error is not about a path, so that its traceback is needed.
    """
    if isinstance(error, TrialbusError):
        print(f"error: {mask_message(str(error))}", file=sys.stderr)
        return exit_codes.get_error_code(error)
    if error.filename is None:
        raise error
    print(f"error: {str(error.filename)!r}: {error.strerror}", file=sys.stderr)
    return exit_codes.FAILED


def _hub(composition: ComposedConfig) -> int:
    from trialbus.hub.hub import Hub
    from trialbus.hub.main import raise_file_limit, serve
    from trialbus.protocol.security import Gatekeeper

    bus = sections.read_bus(composition.config)
    gatekeeper = Gatekeeper(bus.keys.dir, bus.keys.hub) if bus.keys else None
    raise_file_limit()
    hub = Hub(
        bus.endpoint,
        bus.dir,
        sync=bus.sync,
        gatekeeper=gatekeeper,
        insecure=bus.insecure,
        keep_finished_s=bus.keep_finished_s,
    )
    serve(hub)
    return exit_codes.DONE


def _optimizer(composition: ComposedConfig) -> int:
    from trialbus_services.optimizer.sampling.fork_server import start_fork_server
    from trialbus_services.process.fork_servers import end_fork_server

    # The imports take a second or two, in which SIGTERM would leave the fork server behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        start_fork_server()  # imports Optuna while this process does
        from trialbus_services.optimizer.main import run

        return run(
            sections.read_bus(composition.config),
            sections.read_section(composition.config, settings.StorageSettings),
            sections.read_section(composition.config, settings.OptimizerSettings),
        )
    finally:
        end_fork_server()


def _worker(composition: ComposedConfig) -> int:
    from trialbus_services.worker.main import run

    return run(
        sections.read_bus(composition.config),
        sections.read_section(composition.config, settings.WorkerSettings),
        sections.read_trainer(composition.config),
        study=sections.read_study(composition.config).name,
        callbacks=sections.read_callbacks(composition.config),
    )


def _reporter(composition: ComposedConfig) -> int:
    from trialbus_services.notify.factory import build_notifiers
    from trialbus_services.reporter.main import run

    return run(
        sections.read_bus(composition.config),
        sections.read_section(composition.config, settings.StorageSettings),
        sections.read_section(composition.config, settings.ReporterSettings),
        build_notifiers(composition.config),
    )


def _dashboard(composition: ComposedConfig) -> int:
    from trialbus_services.launcher.dashboard import run_dashboard

    return run_dashboard(
        sections.read_section(composition.config, settings.StorageSettings),
        sections.read_section(composition.config, settings.DashboardSettings),
    )


def _monitor(composition: ComposedConfig) -> int:
    try:
        from trialbus_services.monitor.main import run
    except ModuleNotFoundError as error:
        raise TrialbusError(f'{error}; pip install "trialbus[monitor]"') from None

    return run(
        sections.read_bus(composition.config),
        sections.read_section(composition.config, settings.MonitorSettings),
    )


def _study(composition: ComposedConfig) -> int:
    from trialbus_services.launcher.phases import run_phases

    return run_phases(composition)


def _dry_run(composition: ComposedConfig, *, is_verbose: bool) -> int:
    from trialbus_services.launcher.dry_run import format_plan
    from trialbus_services.launcher.phases import make_plans
    from trialbus_services.worker.main import check_function

    for plan in make_plans(composition):
        if plan.trainer is not None:
            worker = sections.read_section(plan.composed.config, settings.WorkerSettings)
            callbacks = sections.read_callbacks(plan.composed.config)
            check_function(plan.bus, worker, plan.trainer, callbacks)
        print(format_plan(plan, with_config=is_verbose))
    return exit_codes.DONE


#: Functions of the commands without a config. A function is imported when the command is called, so
#: that the other commands start faster.
TOOLS = {
    "best": "trialbus_services.cli.best:best",
    "report": "trialbus_services.cli.report:report",
    "watch": "trialbus_services.cli.watch:watch",
    "events": "trialbus_services.cli.inspect:events",
    "status": "trialbus_services.cli.inspect:status",
    "forget": "trialbus_services.cli.inspect:forget",
    "init": "trialbus_services.cli.starting.command:run",
    "log": "trialbus_services.cli.log:log",
    "keys": "trialbus_services.cli.keys:keys",
    "metrics": "trialbus_services.cli.metrics:metrics",
}

#: Functions of the commands with a config.
COMMANDS: dict[str, Callable[[ComposedConfig], int]] = {
    "study": _study,
    "hub": _hub,
    "optimizer": _optimizer,
    "worker": _worker,
    "reporter": _reporter,
    "monitor": _monitor,
    "dashboard": _dashboard,
}
