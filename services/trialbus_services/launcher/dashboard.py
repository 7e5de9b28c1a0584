"""Optuna's dashboard on the storage of a config, with the artifacts of trials."""

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
from trialbus_services.process.signals import install_stop_event

_PROGRAM = "optuna-dashboard"
_TICK_S = 0.25


def run_dashboard(storage: settings.StorageSettings, dashboard: settings.DashboardSettings) -> int:
    """Serve the dashboard until SIGTERM or Ctrl-C and return the exit code.

    Raises:
        TrialbusError: The storage cannot be shown, or the dashboard is not installed.
    """
    stop = install_stop_event()
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
    """Serve the dashboard during the block, in a silent process.

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
        raise TrialbusError(
            "storage.url: 'memory://' cannot be read by another process "
            "(expected a file or a database)"
        )
    beside_python = shutil.which(_PROGRAM, path=str(Path(sys.executable).parent))
    program = beside_python or shutil.which(_PROGRAM)
    if program is None:
        raise TrialbusError(f'{_PROGRAM} is not installed: pip install "trialbus[dashboard]"')
    listen(
        dashboard.host, dashboard.port, host_key="dashboard.host", port_key="dashboard.port"
    ).close()
    locate_artifacts().mkdir(parents=True, exist_ok=True)
    return [
        *(program, storage.url.removeprefix(JOURNAL)),  # the dashboard takes the file of a journal
        *("--host", dashboard.host, "--port", str(dashboard.port)),
        *("--artifact-dir", str(locate_artifacts())),
    ]
