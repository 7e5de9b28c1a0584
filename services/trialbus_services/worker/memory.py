"""Memory of trainings: how much the processes of a training use, and kills by the kernel."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path

from trialbus.errors import SpecError

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_SCAN_S = 0.5
_N_SAMPLES = 20  # ten seconds, at two samples a second: a large process takes seconds to end


class MemoryLimit:
    """The limit of memory for the processes of each training of a worker.

    The resident memory of all processes in the training's session is added up. Where the sum is
    above the limit, memory that processes share is divided among them before the limit is applied:
    forked data loaders share most of theirs.

    Args:
        gigabytes: Limit for each training, in units of 10^9 bytes; None for no limit.

    Raises:
        SpecError: There is a limit, and this system does not tell the memory of processes.
    """

    def __init__(self, gigabytes: float | None) -> None:
        if gigabytes is not None and not (sys.platform == "linux" and (_PROC / "1/stat").exists()):
            raise SpecError(
                "worker.memory_gb", f"{gigabytes:g} cannot be applied without /proc (expected null)"
            )
        self._limit = gigabytes
        self._sessions: dict[int, list[int]] = {}
        self._scanned_at = -_SCAN_S

    def find_excess(self, session: int) -> str | None:
        """Return a sentence about memory above the limit; None if the limit is not exceeded.

        Args:
            session: Process id of the training, which leads the session.
        """
        if self._limit is None:
            return None
        now = time.monotonic()
        if now - self._scanned_at >= _SCAN_S:
            self._scanned_at = now
            self._sessions = _list_sessions()
        processes = self._sessions.get(session, [])
        if sum(map(_measure_resident, processes)) <= self._limit * 1e9:
            return None
        used = sum(map(_measure_share, processes)) / 1e9
        if used <= self._limit:
            return None
        return (
            f"the training used {used:.3g} GB in {len(processes)} processes "
            f"(worker.memory_gb={self._limit:g})"
        )


class OutOfMemoryKills:
    """The kernel's count of processes that it killed for want of memory, in the last ten seconds.

    The kernel counts for the cgroup of this process, which trainings share; without a cgroup for
    the whole machine.

    Args:
        counter: File with the count in a line `oom_kill N`; None finds the file.
    """

    def __init__(self, counter: Path | None = None) -> None:
        files = _list_counters() if counter is None else [counter]
        self._file = next((file for file in files if _read_count(file) is not None), None)
        self._samples: deque[int] = deque(maxlen=_N_SAMPLES)
        self.sample()

    def sample(self) -> None:
        """Keep the present count; called twice a second."""
        self._samples.append(self._read())

    @property
    def has_grown(self) -> bool:
        """Whether the kernel has killed a process in the last ten seconds."""
        return self._read() > self._samples[0]

    def _read(self) -> int:
        return 0 if self._file is None else _read_count(self._file) or 0


def describe_process(pid: int) -> str:
    """Return the id of a process, with its command where the system tells the command."""
    try:
        command = (_PROC / f"{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return f"process {pid}"
    text = command.decode(errors="replace").strip()
    return f"process {pid} ({text[:80]}{'...' if len(text) > 80 else ''})"


def _list_sessions() -> dict[int, list[int]]:
    """Return the ids of the processes of this machine by session."""
    sessions: dict[int, list[int]] = defaultdict(list)
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                # The command, in parentheses, may contain anything.
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                sessions[int(fields[3])].append(int(folder.name))
            except (OSError, IndexError, ValueError):  # the process has ended
                continue
    return sessions


def _measure_resident(pid: int) -> int:
    """Return the resident memory of a process in bytes, shared memory included."""
    try:
        pages = int((_PROC / f"{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):  # the process has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _measure_share(pid: int) -> int:
    """Return the memory of a process in bytes, with its share of the memory that others use too."""
    try:
        for line in (_PROC / f"{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    except OSError:  # not readable, or the process has ended
        return _measure_resident(pid)
    return 0


def _list_counters() -> Iterable[Path]:
    """Return the files that may hold the count of kills for the cgroup of this process."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for folder in (path.lstrip("/"), ""):  # in a container the path may be the host's
            if not controllers:
                yield _CGROUPS / folder / "memory.events"
            elif "memory" in controllers.split(","):
                yield _CGROUPS / "memory" / folder / "memory.oom_control"
    yield _PROC / "vmstat"


def _read_count(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        return None
    return None
