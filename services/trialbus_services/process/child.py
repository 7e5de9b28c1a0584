"""Services as child processes: supervised, restarted, and ended with the parent process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trialbus.errors import SpecError, TrialbusError
from trialbus.protocol.private_folder import open_private_log
from trialbus_services.process import exit_codes, paths
from trialbus_services.process.signals import hold_signals

_PARENT_VARIABLE = "TRIALBUS_PARENT_ON_STDIN"
#: Environment variable with the arguments of a service, which only this user can read.
_ARGUMENTS_VARIABLE = "TRIALBUS_SERVICE_ARGUMENTS"
_MAX_RESTARTS = 5
_STABLE_S = 30.0
_STOP_S = 20.0


class Child:
    """A service as a child process, outside the process group of the terminal.

    The service ends with this process, even if this process is killed: the standard input of the
    service is a pipe, and `stop_with_parent` waits in the service until the pipe is closed.

    Args:
        name: Name of the service.
        arguments: Arguments of the `trialbus` command after the name of the service.
        visible_arguments: The arguments without secrets, for the command line of the process, which
            every user of this machine can read.
        log: File to which the output of the service is appended.

    Raises:
        TrialbusError: The log cannot be written.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], visible_arguments: Sequence[str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self._arguments = list(arguments)
        self._visible_arguments = list(visible_arguments)
        self._restarts = 0
        self._start()

    @property
    def pid(self) -> int:
        """Process id of the service."""
        return self._process.pid

    def supervise(self, report: Callable[[str], None]) -> bool:
        """Restart the service if the process has ended.

        Args:
            report: Function that is called with a line about a restart.

        Returns:
            False if the service has ended because another service of the name serves already.

        Raises:
            TrialbusError: The service ended too often in a short time, or refuses to start.
        """
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self._started > _STABLE_S:
                self._restarts = 0
            return True
        if code == exit_codes.ALREADY_SERVED:
            return False
        log_problem = self._find_log_problem()
        if log_problem or self._restarts == _MAX_RESTARTS or code == exit_codes.WRONG_INPUT:
            reason = "; ".join(filter(None, [self._read_last_message(), log_problem]))
            raise TrialbusError(
                f"the {self.name} ended with code {code}: {reason} (log: {self.log})"
            )
        self._restarts += 1
        report(f"the {self.name} ended with code {code}; starting it again")
        self._start()
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

    def _start(self) -> None:
        self._started = time.monotonic()
        try:
            log = open_private_log(self.log)
        except OSError as error:
            raise TrialbusError(
                f"the {self.name} cannot be started: no log can be written to {self.log} "
                f"({error.strerror}); choose a bus.dir that this user may write to"
            ) from None
        with log, hold_signals():
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trialbus_services", self.name, *self._visible_arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    _PARENT_VARIABLE: "1",
                    _ARGUMENTS_VARIABLE: json.dumps(self._arguments),
                },
                start_new_session=True,
            )

    def _find_log_problem(self) -> str | None:
        """Return why no log can be written, for example a full disk; None if all is well."""
        try:
            paths.check_writable(self.log.parent, "bus.dir")
        except SpecError as error:
            return str(error)
        return None

    def _read_last_message(self) -> str:
        """Return the last message that the service printed since the last start, on one line.

        Indented lines at the end belong to the line above: an error names the source of a value so.
        """
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return "it left no log"
        message: list[str] = []
        for line in reversed(lines):
            if line.strip():
                message.insert(0, line.strip())
            if message and not line[:1].isspace():
                break
        return " ".join(message) or "it printed nothing"


def take_arguments(visible_arguments: list[str]) -> list[str]:
    """Return the arguments of this process; of a `Child`, those with the secrets.

    Args:
        visible_arguments: Arguments of the command line after the name of the service.
    """
    arguments = os.environ.pop(_ARGUMENTS_VARIABLE, None)
    return visible_arguments if arguments is None else json.loads(arguments)


def stop_with_parent() -> None:
    """Send SIGTERM to this process, if a `Child`, when the parent has ended."""
    if not os.environ.pop(_PARENT_VARIABLE, None):
        return

    def wait_for_end() -> None:
        # Not sys.stdin, whose lock would be held when the interpreter shuts down.
        while os.read(0, 512):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()
