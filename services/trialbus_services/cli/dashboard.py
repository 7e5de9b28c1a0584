"""Optuna's own dashboard on the storage of a config, with the files that trials kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from trialbus.errors import TrialbusError
from trialbus.trainer.artifacts import directory
from trialbus_services.config import settings
from trialbus_services.optimizer.storage import check_url
from trialbus_services.process import exit_codes


def command(storage: settings.StorageSettings, dashboard: settings.DashboardSettings) -> list[str]:
    """Return the command that serves it.

    Raises:
        TrialbusError: The storage cannot be shown, or the dashboard is not installed.
    """
    check_url(storage.url)
    if storage.url == "memory://":
        raise TrialbusError("storage.url: 'memory://' cannot be seen by another process")
    name = "optuna-dashboard"
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        raise TrialbusError(f'{name} is not installed: pip install "trialbus[dashboard]"')
    url = storage.url
    if url.startswith("journal:///"):
        url = url.removeprefix("journal:///")  # it tells a journal by its file
    directory().mkdir(parents=True, exist_ok=True)
    return [
        *(program, url),
        *("--host", dashboard.host, "--port", str(dashboard.port)),
        *("--artifact-dir", str(directory())),
    ]


def run(storage: settings.StorageSettings, dashboard: settings.DashboardSettings) -> int:
    """Serve it until it is interrupted and return the exit code."""
    try:
        return subprocess.run(command(storage, dashboard), check=False).returncode
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
