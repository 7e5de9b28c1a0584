"""Every descendant of this process, orphans too, found by its parents in /proc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Descendant:
    """A process that this process, or a descendant of it, has started."""

    pid: int
    started: str
    """Time of the start in the kernel's ticks: tells apart processes of one number."""
    is_dead: bool
    """Whether the process has ended and waits for its parent."""
    parent: int
    arguments: list[str]

    def kill(self) -> bool:
        """Send SIGKILL to the process; return False if it has ended before."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            handle = os.pidfd_open(self.pid)
            try:
                # The handle keeps the number; only now the start tells whose number it is.
                if _read(self.pid).started == self.started:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    return True
            finally:
                os.close(handle)
        return False


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose parent ends."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError("this kernel has no child subreapers")


def list_descendants() -> list[Descendant]:
    """Return the living descendants of this process."""
    children: dict[int, list[Descendant]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                process = _read(int(entry.name))
                children.setdefault(process.parent, []).append(process)
    descendants: list[Descendant] = []
    parents = [os.getpid()]
    while parents:
        found = children.get(parents.pop(), [])
        descendants += found
        parents += [process.pid for process in found]
    return [process for process in descendants if not process.is_dead]


def bury_orphans(started: Container[int]) -> None:
    """Take the exit codes of dead children that this process has not started itself.

    Args:
        started: Process ids of the children that somebody else waits for.
    """
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    for pid in map(int, task.read_text().split()):
        if pid not in started:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _read(pid: int) -> Descendant:
    """Read a process from /proc.

    Raises:
        FileNotFoundError: There is no such process.
        ProcessLookupError: The process ended meanwhile.
    """
    folder = Path(f"/proc/{pid}")
    # The name of the program stands in parentheses and may hold anything.
    fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return Descendant(
        pid=pid,
        started=fields[19],
        is_dead=fields[0] in "ZX",
        parent=int(fields[1]),
        arguments=arguments,
    )
