"""Memory of trainings: limits that count shared memory once, and kills by the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from trialbus import Link
from trialbus.messages import events
from trialbus_services.worker.attempt import Attempt
from trialbus_services.worker.memory import MemoryLimit, OutOfMemoryKills
from trialbus_services.worker.training_process import OnStart, TrainingExit, ignore_start

FORKS = """
import os, time
hoard = bytearray(os.urandom(1) * 200_000_000)
for _ in range(3):
    if os.fork() == 0:
        sum(hoard[::4096])
        break
print("ready", flush=True)
time.sleep(600)
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


class EndedTrainer:
    """A trainer whose trainings end at once with an exit code."""

    def __init__(self, code: int) -> None:
        self._code = code

    async def start(self) -> None:
        """Return at once."""

    def open_collector(
        self,
        trial: events.TrialAssigned,
        log: Path,
        publish: Callable[[events.EvaluationComplete], object],
    ) -> None:
        """Return None: the training has no metrics."""

    async def run(
        self,
        trial: events.TrialAssigned,
        env: Mapping[str, str],
        log: Path,
        on_start: OnStart = ignore_start,
    ) -> TrainingExit:
        return TrainingExit(self._code, "")

    async def close(self) -> None:
        """Return at once."""


@linux_only
def test_memory_that_forked_processes_share_counts_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        try:
            assert MemoryLimit(0.4).find_excess(process.pid) is None
            excess = MemoryLimit(0.1).find_excess(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert excess is not None
    assert "in 4 processes (worker.memory_gb=0.1)" in excess


def test_without_a_limit_no_memory_is_too_much() -> None:
    assert MemoryLimit(None).find_excess(os.getpid()) is None


def write_kills(counter: Path, n: int) -> None:
    counter.write_text(f"low 0\nmax 3\noom 2\noom_kill {n}\noom_group_kill 0\n")


def test_a_kill_by_the_kernel_is_noticed_for_ten_seconds(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    write_kills(counter, 4)
    kills = OutOfMemoryKills(counter)
    assert not kills.has_grown
    write_kills(counter, 5)
    assert kills.has_grown
    for _ in range(20):
        assert kills.has_grown
        kills.sample()
    assert not kills.has_grown


def test_a_system_without_such_a_counter_has_no_kills(tmp_path: Path) -> None:
    assert not OutOfMemoryKills(tmp_path / "missing").has_grown


@pytest.mark.parametrize(
    ("code", "kernel_killed", "cause"),
    [
        (-9, True, "out_of_memory"),
        (137, True, "out_of_memory"),
        (-9, False, "killed"),
        (-15, True, "killed"),
        (-11, False, "killed"),
        (1, True, "exception"),
        (129, False, "exception"),
        (0, True, None),
    ],
)
def test_the_cause_is_told_by_exit_code_and_kernel(
    tmp_path: Path, code: int, kernel_killed: bool, cause: str | None
) -> None:
    with Link(f"ipc://{tmp_path}/hub.sock") as link:
        attempt = Attempt(
            events.TrialAssigned(study="s", trial=0, request=uuid.uuid4().hex, params={}),
            link=link,
            log=tmp_path / "log",
            memory=MemoryLimit(None),
            exit_grace_s=None,
            since=0,
        )
        asyncio.run(attempt.run(EndedTrainer(code), {}, lambda _: None))
        finished = attempt.conclude(kernel_killed=kernel_killed)
        attempt.handover.close()
    assert finished.cause == cause
    assert finished.state == ("failed" if cause else "complete")
