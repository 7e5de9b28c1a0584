"""Services as child processes: supervised, restarted, and ended with the parent process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trialbus.errors import TrialbusError
from trialbus_services.process import exit_codes

_PARENT_VARIABLE = "TRIALBUS_PARENT_ON_STDIN"
_MAX_RESTARTS = 5
_STEADY_S = 30.0
_STOP_S = 20.0


class Child:
    """A service in a process of its own, outside the terminal's process group.

    It ends when this process does, however that comes about: its standard input is a pipe, and
    `stop_with_parent` in the child waits for its end.

    Args:
        name: Which service.
        arguments: Arguments of the `trialbus` command after the service's name.
        log: File that takes what it prints.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._arguments = list(arguments)
        self._restarts = 0
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Process id of the service."""
        return self._process.pid

    def check(self, say: Callable[[str], None]) -> bool:
        """Restart a service that has ended; return False where another one has its place.

        Raises:
            TrialbusError: It ended too often in a short time, or refuses to start.
        """
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self._started > _STEADY_S:
                self._restarts = 0
            return True
        if code == exit_codes.ALREADY_SERVED:
            return False
        if self._restarts == _MAX_RESTARTS or code == exit_codes.WRONG_INPUT:
            raise TrialbusError(
                f"the {self.name} ended with code {code}: {self._last_line()} (log: {self.log})"
            )
        self._restarts += 1
        say(f"the {self.name} ended with code {code}; starting it again")
        self._process = self._start()
        return True

    def terminate(self) -> None:
        """Send SIGTERM to the service."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, timeout_s: float = _STOP_S) -> None:
        """Wait until the process has ended, and kill the process after a time limit."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "trialbus_services", self.name, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, _PARENT_VARIABLE: "1"},
                start_new_session=True,
            )

    def _last_line(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        return "it left no log"


def stop_with_parent() -> None:
    """Send SIGTERM to this process when its parent is gone; do nothing outside of a child."""
    if not os.environ.pop(_PARENT_VARIABLE, None):
        return

    def wait_for_end() -> None:
        # Not sys.stdin: its lock would be held when the interpreter shuts down.
        while os.read(0, 512):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()
