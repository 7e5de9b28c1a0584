"""Training process: a process under a guard, with a log and an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from trialbus.protocol.private_folder import open_private_log
from trialbus_services.process import exit_codes, guard

_TAIL_LINES = 20
_TAIL_BYTES = 16 << 10
_CHUNK = 4096

OnStart: TypeAlias = Callable[[int], None]
"""Called with the process id of a training, which leads a session and a process group."""


def ignore_start(_: int) -> None:
    """Do nothing with the process id of a training."""


@dataclass(frozen=True)
class TrainingExit:
    """Exit code and last output of a training."""

    code: int
    """Exit code; negative for the number of the signal that ended the training."""
    log_tail: str
    """Last lines that the training printed."""

    @property
    def signal(self) -> int | None:
        """Number of the signal that ended the training; None if the training ended by itself."""
        return exit_codes.find_signal(self.code)

    @property
    def error(self) -> str | None:
        """Last lines and reason of the end, as text; None for exit code 0."""
        if self.code == 0:
            return None
        reason = f"the trainer {exit_codes.describe_code(self.code)}"
        if self.code < 0:
            return f"{self.log_tail}\n{reason}".strip()
        tail = self.log_tail.rstrip()
        # On the last line, which views show, and which says more than a code.
        return f"{tail} ({reason})" if tail else reason


async def run_training(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    log: Path,
    grace_s: float,
    on_start: OnStart = ignore_start,
) -> TrainingExit:
    """Run a training and return the exit code and the last output.

    A cancellation first ends the training, with all processes of its group, and is raised then.

    Args:
        command: Program and its arguments.
        env: Whole environment of the training.
        cwd: Working directory; None for that of this process.
        log: File to which the output is appended.
        grace_s: Seconds between SIGTERM and SIGKILL after a cancellation.
        on_start: Called with the process id of the training.

    Raises:
        OSError: No process could be started in `cwd`, or `log` cannot be written.
    """
    guarded_command = [sys.executable, "-I", "-S", str(guard.__file__), str(grace_s), *command]
    connection, guard_end = socket.socketpair()
    connection.settimeout(0)
    with connection:
        # A separate task: a cancellation must not interrupt the start of the process.
        guard_task = asyncio.create_task(
            _run_guard(guarded_command, env, cwd, log, (connection, guard_end), on_start=on_start)
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
    *,
    on_start: OnStart,
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
    kill_unguarded_group(await read_messages(connection, on_start))
    return await process.wait()


async def read_messages(connection: socket.socket, on_start: OnStart) -> bytes:
    """Return all messages of a guard when the guard has ended, and call `on_start` at the first."""
    messages = b""
    try:
        while chunk := await asyncio.get_running_loop().sock_recv(connection, _CHUNK):
            training = chunk.partition(guard.GROUP_ENDED)[0]
            if not messages and training:
                on_start(int(training))
            messages += chunk
    except OSError:  # guard or fork server were killed
        return messages
    return messages


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
