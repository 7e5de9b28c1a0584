"""Runs a function for each trial in a process forked from a server with the module imported."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from trialbus.errors import SpecError
from trialbus.messages.events import TrialAssigned
from trialbus_services.process import guard
from trialbus_services.worker import fork_server
from trialbus_services.worker.training_process import Exit, end_group, tail

_CHUNK = 4096
_TRIES = 2


class WarmTrainer:
    """Runs `module:function` for each trial, see `fork_server`.

    Args:
        function: Called with the `trialbus.Trial`; what it returns are the objective values, None
            leaves them to the evaluations.
        env: Added to the worker's environment when the module is imported.
        cwd: Folder where it runs, and where modules are found; None is the worker's.
        log: Takes what importing the module prints.
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
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Import the module, see `Trainer.start`."""
        async with self._starting:
            if self._server is None:
                self._server = await self._started()

    async def run(self, trial: TrialAssigned, env: Mapping[str, str], log: Path) -> Exit:
        """Run the function, see `Trainer.run`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            told = await self._try(env, log)
            end_group(told)
            if told:
                _, done, code = told.partition(guard.DONE)
                return Exit(int(code) if done and code else -signal.SIGKILL, tail(log))
            await self.close()  # it was killed with the trial in its hands
        raise OSError(f"the fork server of {self._function!r} ends at once, see {self._log}")

    async def close(self) -> None:
        """End the fork server; running trainings end on their own or through their guards."""
        if self._server is not None:
            process, requests = self._server
            self._server = None
            requests.close()
            await process.wait()

    async def _try(self, env: Mapping[str, str], log: Path) -> bytes:
        """Return the messages of a training's guard; an empty list where no training began."""
        line, end_of_guard = socket.socketpair()
        line.settimeout(0)
        with line:
            with end_of_guard, log.open("ab") as output:
                await self.start()
                if self._server is None:
                    return b""
                try:
                    socket.send_fds(
                        self._server[1], [b"\0"], [end_of_guard.fileno(), output.fileno()]
                    )
                except OSError:
                    return b""
            # A task of its own: a cancellation must not cut what is said to the guard in two.
            talking = asyncio.create_task(self._talk(line, env))
            try:
                return await asyncio.shield(talking)
            except asyncio.CancelledError:
                line.shutdown(socket.SHUT_WR)
                await asyncio.wait([talking])
                end_group(talking.result())
                raise

    async def _talk(self, line: socket.socket, env: Mapping[str, str]) -> bytes:
        loop = asyncio.get_running_loop()
        request = json.dumps({"env": dict(env), "grace_s": self._grace_s}).encode()
        told = b""
        try:
            await loop.sock_sendall(line, request + b"\n")
            while more := await loop.sock_recv(line, _CHUNK):
                told += more
        except OSError:  # guard or server were killed
            return told
        return told

    async def _started(self) -> tuple[asyncio.subprocess.Process, socket.socket]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        requests, end_of_server = socket.socketpair()
        requests.settimeout(0)
        with end_of_server, self._log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                fork_server.__name__,
                self._function,
                stdin=end_of_server.fileno(),
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self._env},
                cwd=self._cwd,
                start_new_session=True,
            )
        told = b""
        while not told.endswith(b"\n"):
            more = await asyncio.get_running_loop().sock_recv(requests, _CHUNK)
            if not more:
                told = told or b"the process that imports it ended"
                break
            told += more
        if told.strip() != fork_server.READY:
            requests.close()
            await process.wait()
            reason = told.decode(errors="replace").strip()
            raise SpecError("trainer.function", f"{self._function!r}: {reason} (see {self._log})")
        return process, requests
