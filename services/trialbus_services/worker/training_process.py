"""One training: the process under a guard, the log, and the exit of the process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trialbus_services.process import guard

_TAIL_LINES = 20
_TAIL_BYTES = 16 << 10


@dataclass(frozen=True)
class Exit:
    """How a training ended.

    Attributes:
        code: Its exit code; negative for the number of the signal that ended it.
        log_tail: The last lines of what it printed.
    """

    code: int
    log_tail: str

    @property
    def error(self) -> str | None:
        """Error text of the training; None after a good end."""
        if self.code == 0:
            return None
        if self.code < 0:
            how = f"the trainer was killed by {_signal_name(-self.code)}"
        else:
            how = f"the trainer exited with code {self.code}"
        return f"{self.log_tail}\n{how}".strip()


async def run_training(
    command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, log: Path, grace_s: float
) -> Exit:
    """Run a training to its end.

    Cancelling it ends the training, with everything in its process group, before the cancellation
    goes on.

    Args:
        command: The program and its arguments.
        env: Its whole environment.
        cwd: Its folder; None is this process's.
        log: File that takes what it prints, after what it holds already.
        grace_s: Seconds between SIGTERM and SIGKILL when it is cancelled.

    Raises:
        OSError: No process could be started in `cwd`, or `log` cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    guarded = [sys.executable, "-I", "-S", str(guard.__file__), str(grace_s), *command]
    line, end_of_guard = socket.socketpair()
    with line:
        # A task of its own: a cancellation must not cut the start of the process in two.
        running = asyncio.create_task(_run_guard(guarded, env, cwd, log, (line, end_of_guard)))
        try:
            code = await asyncio.shield(running)
        except asyncio.CancelledError:
            line.shutdown(socket.SHUT_WR)
            await asyncio.wait([running])
            raise
    return Exit(code, tail(log))


async def _run_guard(
    command: list[str],
    env: Mapping[str, str],
    cwd: str | None,
    log: Path,
    lines: tuple[socket.socket, socket.socket],
) -> int:
    line, end_of_guard = lines
    with end_of_guard, log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=end_of_guard.fileno(),
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
            cwd=cwd,
            # Ctrl-C in a terminal is for the worker, which then hands its trials back.
            start_new_session=True,
        )
    code = await process.wait()
    try:
        told = line.recv(64, socket.MSG_DONTWAIT)
    except OSError:
        told = b""
    end_group(told)
    return code


def end_group(told: bytes) -> None:
    """End the process group of a training whose guard was killed."""
    if told and guard.DONE not in told:
        guard.kill_group(int(told), signal.SIGKILL)


def tail(log: Path) -> str:
    """Return the last lines of a file."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has none
        return f"signal {number}"
