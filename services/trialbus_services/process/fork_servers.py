"""The fork server of a service: `multiprocessing` starts one, and leaves its end to itself."""

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import signal
from typing import Any


def end_fork_server() -> None:
    """End the fork server of this process at once; alone it ends when it has imported all."""
    server: Any = multiprocessing.forkserver._forkserver  # pyright: ignore[reportPrivateUsage] # noqa: SLF001
    pid: int | None = getattr(server, "_forkserver_pid", None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
