"""Process ids of an optimizer's samplers."""

from __future__ import annotations

from pathlib import Path

from support.until import until


def wait_for_sampler(optimizer: int) -> int:
    """Wait until an optimizer has exactly one sampler, and return the process id."""
    (pid,) = until(lambda: _list_samplers(optimizer), describe="a sampler")
    return pid


def _list_samplers(optimizer: int) -> list[int]:
    """Return the live children of the fork server of the optimizer's samplers."""
    servers = [pid for pid in _list_children(optimizer) if b"forkserver" in _read(pid, "cmdline")]
    return [
        pid
        for server in servers
        for pid in _list_children(server)
        if _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])
    ]


def _list_children(pid: int) -> list[int]:
    tasks = (Path("/proc") / str(pid) / "task").glob("*")  # each thread has its own
    return [
        int(child) for task in tasks for child in _read(pid, f"task/{task.name}/children").split()
    ]


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""
