"""Real processes for tests, killed and restarted at will and never left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trialbus.client.ring_directory import locate_ring_directory


class Managed:
    """A process that a test may kill and start again.

    Args:
        command: Program and arguments.
        log: File for the output of the process, which is printed when a test fails.
        cwd: Working folder.
    """

    def __init__(self, command: Sequence[str], log: Path, cwd: Path) -> None:
        self.command = list(command)
        self.log = log
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith("TRIALBUS_")
                },
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, like the out-of-memory killer, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def wait(self, timeout_s: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self, timeout_s: float = 20.0) -> int:
        """Send SIGTERM and return the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def printed(self) -> str:
        return self.log.read_text(errors="replace")


class Bus:
    """A folder with the processes of a hub and services, and a socket file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.endpoint = f"ipc://{directory}/hub.sock"
        self.processes: dict[str, Managed] = {}

    def hub(self, *arguments: str) -> Managed:
        command = [
            "-m",
            "trialbus.hub",
            "--endpoint",
            self.endpoint,
            "--dir",
            str(self.directory / "log"),
        ]
        return self.run("hub", [sys.executable, *command, *arguments])

    def service(self, name: str, *overrides: str) -> Managed:
        command = [sys.executable, "-m", "trialbus_services", name]
        return self.run(
            name, [*command, f"bus.endpoint={self.endpoint}", "bus.dir=log", *overrides]
        )

    def run(self, name: str, command: Sequence[str]) -> Managed:
        process = Managed(command, self.directory / f"{name}.out", self.directory)
        self.processes[name] = process
        return process

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            if process.running:
                process.kill()
        # Killed publishers leave rings, which must not reach another bus in the same folder.
        shutil.rmtree(locate_ring_directory(self.endpoint), ignore_errors=True)
