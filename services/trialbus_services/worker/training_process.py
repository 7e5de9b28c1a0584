"""Training process: a process under a guard, with a log and an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trialbus.protocol.private_folder import open_private_log
from trialbus_services.process import guard

_TAIL_LINES = 20
_TAIL_BYTES = 16 << 10


@dataclass(frozen=True)
class TrainingExit:
    """Exit code and last output of a training."""

    code: int
    """Exit code; negative for the number of the signal that ended the training."""
    log_tail: str
    """Last lines that the training printed."""

    @property
    def error(self) -> str | None:
        """Last lines and reason of the end, as text; None for exit code 0."""
        if self.code == 0:
            return None
        if self.code < 0:
            reason = f"the trainer was killed by {_name_signal(-self.code)}"
        else:
            reason = f"the trainer exited with code {self.code}"
        return f"{self.log_tail}\n{reason}".strip()


async def run_training(
    command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, log: Path, grace_s: float
) -> TrainingExit:
    """Run a training and return the exit code and the last output.

    A cancellation first ends the training, with all processes of its group, and is raised then.

    Args:
        command: Program and its arguments.
        env: Whole environment of the training.
        cwd: Working directory; None for that of this process.
        log: File to which the output is appended.
        grace_s: Seconds between SIGTERM and SIGKILL after a cancellation.

    Raises:
        OSError: No process could be started in `cwd`, or `log` cannot be written.
    """
    guarded_command = [sys.executable, "-I", "-S", str(guard.__file__), str(grace_s), *command]
    connection, guard_end = socket.socketpair()
    with connection:
        # A separate task: a cancellation must not interrupt the start of the process.
        guard_task = asyncio.create_task(
            _run_guard(guarded_command, env, cwd, log, (connection, guard_end))
        )
        try:
            code = await asyncio.shield(guard_task)
        except asyncio.CancelledError:
            connection.shutdown(socket.SHUT_WR)
            await asyncio.wait([guard_task])
            raise
    return TrainingExit(code, read_tail(log))


async def _run_guard(
    command: list[str],
    env: Mapping[str, str],
    cwd: str | None,
    log: Path,
    ends: tuple[socket.socket, socket.socket],
) -> int:
    connection, guard_end = ends
    with guard_end, open_private_log(log) as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=guard_end.fileno(),
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
            cwd=cwd,
            # Ctrl-C in a terminal reaches only the worker, which then returns its trials.
            start_new_session=True,
        )
    code = await process.wait()
    try:
        messages = connection.recv(64, socket.MSG_DONTWAIT)
    except OSError:
        messages = b""
    kill_unguarded_group(messages)
    return code


def kill_unguarded_group(messages: bytes) -> None:
    """Kill the process group of a training, if the guard was killed before the group had ended.

    Args:
        messages: All messages of the guard: the number of the group, and `guard.GROUP_ENDED`.
    """
    if messages and guard.GROUP_ENDED not in messages:
        guard.kill_group(int(messages), signal.SIGKILL)


def read_tail(log: Path) -> str:
    """Return the last lines of a file."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
