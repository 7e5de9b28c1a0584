"""Finds the processes in which an optimizer's samplers run."""

from __future__ import annotations

from pathlib import Path

from support.until import until


def sampler_of(optimizer: int) -> int:
    """Return the process id of the one sampler that an optimizer has."""
    (found,) = until(lambda: _samplers(optimizer), describe="a sampler")
    return found


def _samplers(optimizer: int) -> list[int]:
    """Return the children of the server that forks samplers, itself a child of the optimizer."""
    servers = [pid for pid in _children(optimizer) if b"forkserver" in _read(pid, "cmdline")]
    return [
        pid
        for server in servers
        for pid in _children(server)
        if _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])
    ]


def _children(pid: int) -> list[int]:
    tasks = (Path("/proc") / str(pid) / "task").glob("*")  # each thread has its own
    return [
        int(child) for task in tasks for child in _read(pid, f"task/{task.name}/children").split()
    ]


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""
