"""Optuna's own dashboard on the storage of a config, with the files that trials kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from trialbus.errors import TrialbusError
from trialbus.trainer.artifacts import locate_artifacts
from trialbus_services.config import settings
from trialbus_services.optimizer.storage import JOURNAL, check_url
from trialbus_services.process import exit_codes
from trialbus_services.process.listening import listen
from trialbus_services.process.signals import stop_event

_PROGRAM = "optuna-dashboard"
_TICK_S = 0.25


def run_dashboard(storage: settings.StorageSettings, dashboard: settings.DashboardSettings) -> int:
    """Serve the dashboard until SIGTERM or Ctrl-C and return the exit code.

    Raises:
        TrialbusError: The storage cannot be shown, or the dashboard is not installed.
    """
    stop = stop_event()
    # In a session of its own, so that Ctrl-C ends the dashboard through this process.
    process = subprocess.Popen(build_command(storage, dashboard), start_new_session=True)
    while process.poll() is None:
        if stop.wait(_TICK_S):
            process.terminate()
            process.wait()
            return exit_codes.DONE
    return process.returncode


@contextmanager
def serve_dashboard(
    storage: settings.StorageSettings, dashboard: settings.DashboardSettings
) -> Generator[None]:
    """Serve the dashboard during the block, in a process that prints nothing.

    Raises:
        TrialbusError: The storage cannot be shown, or the dashboard is not installed.
    """
    process = subprocess.Popen(
        [*build_command(storage, dashboard), "--quiet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def build_command(
    storage: settings.StorageSettings, dashboard: settings.DashboardSettings
) -> list[str]:
    """Return the command that serves the dashboard.

    Raises:
        TrialbusError: The storage cannot be shown, or the dashboard is not installed.
    """
    check_url(storage.url)
    if storage.url == "memory://":
        raise TrialbusError("storage.url: 'memory://' cannot be seen by another process")
    beside_python = shutil.which(_PROGRAM, path=str(Path(sys.executable).parent))
    program = beside_python or shutil.which(_PROGRAM)
    if program is None:
        raise TrialbusError(f'{_PROGRAM} is not installed: pip install "trialbus[dashboard]"')
    listen(
        dashboard.host, dashboard.port, host_key="dashboard.host", port_key="dashboard.port"
    ).close()
    locate_artifacts().mkdir(parents=True, exist_ok=True)
    return [
        *(program, storage.url.removeprefix(JOURNAL)),  # it tells a journal by its file
        *("--host", dashboard.host, "--port", str(dashboard.port)),
        *("--artifact-dir", str(locate_artifacts())),
    ]
