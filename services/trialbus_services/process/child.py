"""Services as child processes: supervised, restarted, and ended with the parent process."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trialbus.errors import SpecError, TrialbusError
from trialbus.protocol.private_folder import open_private_log
from trialbus_services.process import exit_codes, paths
from trialbus_services.process.exit_codes import ServiceError
from trialbus_services.process.signals import hold_signals

_PARENT_VARIABLE = "TRIALBUS_PARENT_ON_STDIN"
_SIZE_BYTES = 8
_MAX_RESTARTS = 5
_STABLE_S = 30.0
_STOP_S = 20.0
# Beginnings of an error in the output of a service, and of a traceback.
_ERROR = "error: "
_TRACEBACK = "Traceback "


class Child:
    """A service as a child process, outside the process group of the terminal.

    The service gets its arguments and its config through a pipe, which is its standard input and
    which only this user can read. The service ends with this process, even if this process is
    killed: a thread of `join_parent` waits in the service until the pipe is closed.

    Args:
        name: Name of the service.
        arguments: Arguments of the `trialbus` command after the name of the service.
        visible_arguments: The arguments without secrets, for the command line of the process, which
            every user of this machine can read.
        log: File to which the output of the service is appended.
        config: Config that `arguments` compose, as plain data; None lets the service compose the
            config, which takes longer.

    Raises:
        TrialbusError: The log cannot be written.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        visible_arguments: Sequence[str],
        log: Path,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._start_data = pickle.dumps((list(arguments), config))
        self._visible_arguments = list(visible_arguments)
        self._restarts = 0
        #: Error that ended the service before its last restart; None without one.
        self.failure: ServiceError | None = None
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
            ServiceError: The service ended too often in a short time, or refuses to start.
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
            lines = [*self._read_error(), *([log_problem] if log_problem else [])]
            raise ServiceError(self.name, code, lines, self.log)
        self._restarts += 1
        report(self._describe_restart(code))
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
            with contextlib.suppress(BrokenPipeError):
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
                env={**os.environ, _PARENT_VARIABLE: "1"},
                start_new_session=True,
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the service has ended, which is noticed later
            size = len(self._start_data).to_bytes(_SIZE_BYTES, "big")
            self._process.stdin.write(size + self._start_data)
            self._process.stdin.flush()

    def _find_log_problem(self) -> str | None:
        """Return why no log can be written, for example a full disk; None if all is well."""
        try:
            paths.check_writable(self.log.parent, "bus.dir")
        except SpecError as error:
            return str(error)
        return None

    def _read_error(self) -> list[str]:
        """Return the whole error that the service printed last since its last start, by line."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                return find_error(log.read().decode(errors="replace"))
        except OSError:
            return ["it left no log"]

    def _describe_restart(self, code: int) -> str:
        """Return the line about a restart, with the reason if the restart before had another."""
        lines = self._read_error() if code > 0 else [""]
        is_new = self.failure is None or self.failure.lines != lines
        self.failure = ServiceError(self.name, code, lines, self.log) if code > 0 else None
        reason = f" ({lines[0]})" if code > 0 and is_new else ""
        return f"the {self.name} {exit_codes.describe_code(code)}{reason}; starting it again"


def find_error(output: str) -> list[str]:
    """Return the lines of the last error in the output of a program; its last lines without one.

    An error begins with `error: ` and goes on to the end, as the source of a value does below the
    error. Of a traceback only the exception counts.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    if not lines:
        return ["it printed nothing"]
    starts = [i for i, line in enumerate(lines) if line.startswith((_ERROR, _TRACEBACK))]
    start = starts[-1] if starts else len(lines) - 1
    if lines[start].startswith(_TRACEBACK):
        start += 1
        while start < len(lines) - 1 and lines[start][0].isspace():
            start += 1
    while start and lines[start][0].isspace():  # belongs to the line above
        start -= 1
    return [lines[start].removeprefix(_ERROR), *lines[start + 1 :]]


def join_parent(visible_arguments: list[str]) -> tuple[list[str], dict[str, Any] | None]:
    """Return arguments and config of this process; a `Child` gets a SIGTERM when its parent ends.

    Args:
        visible_arguments: Arguments of the command line after the name of the service.

    Returns:
        The arguments, of a `Child` with the secrets, and the config; None where the arguments are
        to be composed.
    """
    if not os.environ.pop(_PARENT_VARIABLE, None):
        return visible_arguments, None
    size = int.from_bytes(_read_input(_SIZE_BYTES), "big")
    # From the process that started this one, with the rights of the same user.
    arguments, config = pickle.loads(_read_input(size))  # noqa: S301

    def wait_for_end() -> None:
        # Not sys.stdin, whose lock would be held when the interpreter shuts down.
        while os.read(0, 512):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()
    return arguments, config


def _read_input(size: int) -> bytes:
    """Return the next bytes of the standard input; end this process if the parent has ended."""
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            sys.exit(exit_codes.FAILED)
        data += chunk
    return data
