"""Optuna's dashboard on the storage of a config, with the artifacts of trials."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from trialbus.errors import TrialbusError
from trialbus.protocol.private_folder import make_private_folder
from trialbus.trainer.artifacts import locate_artifacts
from trialbus_services.config import settings
from trialbus_services.optimizer.storage import JOURNAL, check_url, open_storage
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
    with _start(build_command(storage, dashboard), storage.url) as process:
        return _wait(process, stop)


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
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
    command = [*build_command(storage, dashboard), "--quiet"]
    with _start(command, storage.url, subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _start(command: list[str], url: str, output: int | None = None) -> subprocess.Popen[bytes]:
    """Start the dashboard in a session of its own, so that Ctrl-C reaches only this process.

    Args:
        command: Command of `build_command`.
        url: URL of the storage. Every user of this machine can read the command line, so that the
            dashboard reads the URL from its standard input.
        output: Where the output goes; None for the output of this process.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
    )
    assert process.stdin is not None
    storage = json.dumps(
        url.removeprefix(JOURNAL), ensure_ascii=False
    )  # the dashboard takes the file of a journal
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(f"[optuna_dashboard]\nstorage = {storage}\n".encode())
    return process


def build_command(
    storage: settings.StorageSettings, dashboard: settings.DashboardSettings
) -> list[str]:
    """Return the command that serves the dashboard, with a config to be read from standard input.

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
    open_storage(storage.url)  # makes the tables, without which the dashboard ends in a traceback
    make_private_folder(locate_artifacts())
    return [
        *(program, "--from-config", "/dev/stdin"),
        *("--host", dashboard.host, "--port", str(dashboard.port)),
        *("--artifact-dir", str(locate_artifacts())),
    ]
