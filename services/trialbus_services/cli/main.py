"""The `trialbus` command. Every script in `scripts/` calls into it.

Each subcommand is a Hydra application on the same config tree, so overrides, `--cfg job`,
`--config-dir` and shell completion work as Hydra users expect.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import version

from trialbus.errors import (
    TrialbusError,
)
from trialbus.study.validation import format_expected
from trialbus_services.cli import hydra_app
from trialbus_services.config import sections, settings
from trialbus_services.config.composing import Composed
from trialbus_services.process import exit_codes
from trialbus_services.process.child import stop_with_parent

_USAGE = """\
usage: trialbus COMMAND [HYDRA OVERRIDES | OPTIONS]

commands:
  study      run a study: uses the services that are up, starts the others, shows progress
  hub        the bus's hub, which keeps the event log
  optimizer  the Optuna service: hands out trials, records evaluations, prunes
  worker     runs trials, each as a process of its own
  reporter   writes a report when a study finishes, and tells those who want to know
  monitor    serves a live page about studies: trialbus monitor monitor.port=8053
  dashboard  serves Optuna's own dashboard on the storage

  report     writes the report of a study now: trialbus report digits
  watch      shows a study that runs, from any terminal: trialbus watch digits
  events     prints the events of a bus: trialbus events --study digits --follow
  status     prints the state of a hub: offset, rate, sessions, lag of every durable name
  forget     removes a finished study's events from the log: trialbus forget digits
  metrics    serves a hub's counters to Prometheus: trialbus metrics --port 9464
  keys       makes keys for a bus that strangers can reach: trialbus keys --help

examples:
  trialbus study study=digits study.n_trials=8 pruner=none
  trialbus worker study=digits worker.slots=4 bus.endpoint=tcp://127.0.0.1:5760
  trialbus study --dry-run      check everything, print config, space and first command, and stop
  trialbus study --cfg job      print the composed config and stop
  trialbus study --help         groups and values that can be overridden
  eval "$(trialbus study --shell-completion install=bash)"
"""

#: Option of `trialbus study`.
DRY_RUN = "--dry-run"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code, see `exit_codes`."""
    arguments = sys.argv[1:] if argv is None else argv
    match arguments:
        case [] | ["-h" | "--help", *_]:
            print(_USAGE)
            return exit_codes.DONE if arguments else exit_codes.WRONG_INPUT
        case ["--version", *_]:
            print(version("trialbus"))
            return exit_codes.DONE
        case ["-sc" | "--shell-completion", *_]:
            return hydra_app.complete([*_COMMANDS, *_TOOLS], _COMMANDS, arguments)
        case [name, *overrides] if name in _COMMANDS:
            return _run(name, overrides)
        case [name, *options] if name in _TOOLS:
            return _tool(name, options)
        case [name, *_]:
            hint = format_expected(name, [*_COMMANDS, *_TOOLS])
            print(f"error: there is no command {name!r}{hint}", file=sys.stderr)
            return exit_codes.WRONG_INPUT
        case _:
            raise AssertionError(arguments)


def _run(name: str, arguments: list[str]) -> int:
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {name} %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("hydra").setLevel(logging.WARNING)
    command = _COMMANDS[name]
    if name == "study" and DRY_RUN in arguments:
        arguments = [argument for argument in arguments if argument != DRY_RUN]
        command = _dry_run

    def serve(found: Composed) -> int:
        sections.set_log_level(found.config)
        keys = sections.read_bus(found.config).keys
        if keys is not None:
            # Every link of this process, and of the services it starts, finds them there.
            os.environ.update(keys.environment(keys.service))
        return command(found)

    stop_with_parent()
    try:
        return hydra_app.run(name, arguments, serve)
    except TrialbusError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_codes.for_error(error)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def _tool(name: str, options: list[str]) -> int:
    try:
        if name == "metrics":
            from trialbus_services.cli.metrics import metrics

            return metrics(options)
        if name == "report":
            from trialbus_services.cli.report import report

            return report(options)
        if name == "watch":
            from trialbus_services.cli.watch import watch

            return watch(options)
        from trialbus_services.cli import inspect, keys

        tools = {
            "events": inspect.events,
            "status": inspect.status,
            "forget": inspect.forget,
            "keys": keys.keys,
        }
        return tools[name](options)
    except ModuleNotFoundError as error:
        print(f'error: {error}; pip install "trialbus[{name}]"', file=sys.stderr)
        return exit_codes.FAILED
    except TrialbusError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_codes.for_error(error)


def _hub(found: Composed) -> int:
    from trialbus.hub.hub import Hub, serve
    from trialbus.protocol.security import Gatekeeper

    bus = sections.read_bus(found.config)
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
    return exit_codes.DONE


def _optimizer(found: Composed) -> int:
    from trialbus_services.optimizer.main import run

    return run(
        sections.read_bus(found.config),
        sections.read_section(found.config, settings.StorageSettings),
        sections.read_section(found.config, settings.OptimizerSettings),
    )


def _worker(found: Composed) -> int:
    from trialbus_services.worker.main import run

    return run(
        sections.read_bus(found.config),
        sections.read_section(found.config, settings.WorkerSettings),
        sections.read_trainer(found.config),
        study=sections.read_study(found.config).name,
        callbacks=sections.read_callbacks(found.config),
    )


def _reporter(found: Composed) -> int:
    from trialbus_services.notify.factory import build_notifiers
    from trialbus_services.reporter.main import run

    return run(
        sections.read_bus(found.config),
        sections.read_section(found.config, settings.StorageSettings),
        sections.read_section(found.config, settings.ReporterSettings),
        build_notifiers(found.config),
    )


def _dashboard(found: Composed) -> int:
    from trialbus_services.launcher.dashboard import run_dashboard

    return run_dashboard(
        sections.read_section(found.config, settings.StorageSettings),
        sections.read_section(found.config, settings.DashboardSettings),
    )


def _monitor(found: Composed) -> int:
    try:
        from trialbus_services.monitor.main import run
    except ModuleNotFoundError as error:
        raise TrialbusError(f'{error}; pip install "trialbus[monitor]"') from None

    return run(
        sections.read_bus(found.config),
        sections.read_section(found.config, settings.MonitorSettings),
    )


def _study(found: Composed) -> int:
    from trialbus_services.launcher.phases import run_phases

    return run_phases(found)


def _dry_run(found: Composed) -> int:
    from trialbus_services.launcher.dry_run import format_plan
    from trialbus_services.launcher.phases import make_plans

    for plan in make_plans(found):
        print(format_plan(plan))
    return exit_codes.DONE


_TOOLS = ("report", "watch", "events", "status", "forget", "keys", "metrics")
_COMMANDS: dict[str, Callable[[Composed], int]] = {
    "study": _study,
    "hub": _hub,
    "optimizer": _optimizer,
    "worker": _worker,
    "reporter": _reporter,
    "monitor": _monitor,
    "dashboard": _dashboard,
}
