"""Warm trainer: runs a function for each trial, in a process forked from a fork server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from trialbus.errors import SpecError
from trialbus.messages.events import EvaluationComplete, TrialAssigned
from trialbus.protocol.private_folder import open_private_log
from trialbus_services.process import guard
from trialbus_services.worker import fork_server
from trialbus_services.worker.training_process import (
    OnStart,
    TrainingExit,
    ignore_start,
    kill_unguarded_group,
    read_messages,
    read_tail,
)

_CHUNK = 4096
_MAX_TRIES = 2


class WarmTrainer:
    """Runs a function for each trial in a process forked from `fork_server`.

    Args:
        function: Training function, `module:function`. It is called with the `trialbus.Trial` and
            returns the objective values, or None to take the values of the evaluations.
        env: Environment variables that are added to the worker's when the module is imported.
        cwd: Working directory, also searched for modules; None for the worker's.
        log: File to which the output of the import is appended.
        grace_s: Seconds between SIGTERM and SIGKILL when a training is ended.
    """

    def __init__(
        self, function: str, *, env: Mapping[str, str], cwd: str | None, log: Path, grace_s: float
    ) -> None:
        self._function = function
        self._env = env
        self._cwd = cwd
        self._log = log
        self._grace_s = grace_s
        self._server: tuple[asyncio.subprocess.Process, socket.socket] | None = None
        self._start_lock = asyncio.Lock()

    async def start(self) -> None:
        """Import the module in a new fork server, see `Trainer.start`."""
        async with self._start_lock:
            if self._server is None:
                self._server = await self._start_server()

    async def run(
        self,
        trial: TrialAssigned,
        env: Mapping[str, str],
        log: Path,
        on_start: OnStart = ignore_start,
    ) -> TrainingExit:
        """Run the function for a trial, see `Trainer.run`."""
        for _ in range(_MAX_TRIES):
            messages = await self._request_training(env, log, on_start)
            kill_unguarded_group(messages)
            if messages:
                _, ended, code = messages.partition(guard.GROUP_ENDED)
                exit_code = int(code) if ended and code else -signal.SIGKILL
                return TrainingExit(exit_code, read_tail(log))
            await self.close()  # the fork server was killed before it had forked
        raise OSError(f"the fork server of {self._function!r} ends at once, see {self._log}")

    def open_collector(
        self, trial: TrialAssigned, log: Path, publish: Callable[[EvaluationComplete], object]
    ) -> None:
        """Return None: a function reports the metrics of its trial itself."""

    async def close(self) -> None:
        """End the fork server, but not the trainings that are still running."""
        if self._server is not None:
            process, requests = self._server
            self._server = None
            requests.close()
            await process.wait()

    async def _request_training(
        self, env: Mapping[str, str], log: Path, on_start: OnStart
    ) -> bytes:
        """Run a training and return all messages of the guard; empty if no training was started."""
        connection, guard_end = socket.socketpair()
        connection.settimeout(0)
        with connection:
            with guard_end, open_private_log(log) as output:
                await self.start()
                if self._server is None:
                    return b""
                try:
                    socket.send_fds(self._server[1], [b"\0"], [guard_end.fileno(), output.fileno()])
                except OSError:
                    return b""
            # A separate task: a cancellation must not interrupt the request to the guard.
            exchange = asyncio.create_task(self._exchange_messages(connection, env, on_start))
            try:
                return await asyncio.shield(exchange)
            except asyncio.CancelledError:
                connection.shutdown(socket.SHUT_WR)
                await asyncio.wait([exchange])
                kill_unguarded_group(exchange.result())
                raise

    async def _exchange_messages(
        self, connection: socket.socket, env: Mapping[str, str], on_start: OnStart
    ) -> bytes:
        """Send the request to a guard, and return all messages that the guard sends."""
        request = json.dumps({"env": dict(env), "grace_s": self._grace_s}).encode()
        try:
            await asyncio.get_running_loop().sock_sendall(connection, request + b"\n")
        except OSError:  # guard or fork server were killed
            return b""
        return await read_messages(connection, on_start)

    async def _start_server(self) -> tuple[asyncio.subprocess.Process, socket.socket]:
        requests, server_end = socket.socketpair()
        requests.settimeout(0)
        with server_end, open_private_log(self._log) as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                fork_server.__name__,
                self._function,
                stdin=server_end.fileno(),
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self._env},
                cwd=self._cwd,
                start_new_session=True,
            )
        answer = b""
        while not answer.endswith(b"\n"):
            chunk = await asyncio.get_running_loop().sock_recv(requests, _CHUNK)
            if not chunk:
                answer = answer or b"the process that imports it ended"
                break
            answer += chunk
        if answer.strip() != fork_server.READY:
            requests.close()
            await process.wait()
            reason = answer.decode(errors="replace").strip()
            raise SpecError("trainer.function", f"{self._function!r}: {reason} (see {self._log})")
        return process, requests
