"""The guard between a worker and a training, and the worker's side, as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from support.until import until, until_async
from trialbus_services.process import guard
from trialbus_services.worker.training_process import TrainingExit, run_training

# Prints the process ids of a training and a child of its own, both of which outlast the test.
FAMILY = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


def parse_pids(printed: str) -> list[int]:
    """Return the process ids in the first line, once the line is whole."""
    line, end, _ = printed.partition("\n")
    return [int(pid) for pid in line.split()] if end else []


class GuardedTraining:
    """A guard with a training, and the pipe to the worker."""

    def __init__(self, command: Sequence[str], grace_s: float, folder: Path) -> None:
        self._out = folder / "out"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(guard.__file__), str(grace_s), *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def read_output(self) -> str:
        return self._out.read_text()

    def wait_for_pids(self) -> list[int]:
        """Wait until the training has printed process ids, and return the ids."""
        return until(lambda: parse_pids(self.read_output()), 20, "the training's first line")

    def close_pipe(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


class Run(Protocol):
    def __call__(self, *command: str, grace_s: float = 5.0) -> GuardedTraining: ...


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with ExitStack() as stack:

        def start(*command: str, grace_s: float = 5.0) -> GuardedTraining:
            guarded = GuardedTraining(command, grace_s, tmp_path)
            stack.callback(guarded.process.wait)
            stack.callback(guarded.process.kill)
            stack.callback(guarded.close_pipe)
            return guarded

        yield start


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def list_children(*, recursive: bool = True) -> set[psutil.Process]:
    """Return the children of this process, including children of other tests' fixtures."""
    return set(psutil.Process().children(recursive=recursive))


def have_ended(family: list[int]) -> bool:
    return not any(is_alive(pid) for pid in family)


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_of_the_training_passes_through(run: Run, code: int) -> None:
    assert run("sh", "-c", f"exit {code}").process.wait(20) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGPIPE])
def test_a_training_that_died_of_a_signal_makes_the_guard_die_of_the_signal(
    run: Run, number: int
) -> None:
    assert run("sh", "-c", f"kill -{int(number)} $$").process.wait(20) == -number


def test_a_program_that_does_not_exist_is_named_with_its_key(run: Run) -> None:
    guarded = run("no-such-program")
    assert guarded.process.wait(20) == guard.NOT_FOUND
    assert "trainer.command: there is no 'no-such-program'" in guarded.read_output()


def test_a_file_that_is_not_a_program_is_named_with_its_key(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("not a program")
    guarded = run(str(file))
    assert guarded.process.wait(20) == guard.NOT_EXECUTABLE
    assert f"trainer.command: '{file}' cannot be run" in guarded.read_output()


def test_when_the_worker_closes_the_pipe_the_training_and_its_children_end(run: Run) -> None:
    guarded = run(sys.executable, "-c", FAMILY)
    family = guarded.wait_for_pids()
    guarded.close_pipe()
    assert guarded.process.wait(20) == -signal.SIGTERM
    until(lambda: have_ended(family), 10)


def test_when_the_worker_is_killed_the_training_and_its_children_end(tmp_path: Path) -> None:
    worker = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-I', '-S', sys.argv[1], '5', *sys.argv[2:]]\n"
        "subprocess.Popen(command, stdin=subprocess.PIPE)\n"
        "time.sleep(600)\n"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", worker, str(guard.__file__), sys.executable, "-c", FAMILY],
            stdout=file,
        )
    family = until(lambda: parse_pids(out.read_text()), 20, "the training's first line")
    process.kill()
    process.wait()
    until(lambda: have_ended(family), 10)


@pytest.mark.skipif(
    sys.platform != "linux", reason="only the Linux kernel can kill a child with its parent"
)
def test_when_the_guard_is_killed_the_training_ends(run: Run) -> None:
    guarded = run(sys.executable, "-c", FAMILY)
    training, child = guarded.wait_for_pids()
    guarded.process.kill()
    until(lambda: not is_alive(training), 10)
    os.kill(child, signal.SIGKILL)  # only the guard knew this process


def test_a_training_that_ignores_sigterm_is_killed_after_the_grace(run: Run) -> None:
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(600)\n"
    )
    guarded = run(sys.executable, "-c", script, grace_s=0.2)
    family = guarded.wait_for_pids()
    guarded.close_pipe()
    assert guarded.process.wait(20) == -signal.SIGKILL
    assert have_ended(family)


def test_processes_that_a_training_leaves_behind_are_killed(run: Run) -> None:
    guarded = run("sh", "-c", "sleep 600 & echo $!")
    (child,) = guarded.wait_for_pids()
    assert guarded.process.wait(20) == 0
    until(lambda: not is_alive(child), 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_guard_ends_the_training_and_its_children(run: Run, number: int) -> None:
    guarded = run(sys.executable, "-c", FAMILY)
    family = guarded.wait_for_pids()
    guarded.process.send_signal(number)
    assert guarded.process.wait(20) == -signal.SIGTERM
    until(lambda: have_ended(family), 10)


def test_a_training_has_no_input_and_leads_a_session(run: Run) -> None:
    guarded = run(
        sys.executable,
        "-c",
        "import os, sys; print(os.getpid(), os.getsid(0), len(sys.stdin.read()))",
    )
    pid, session, read = guarded.wait_for_pids()
    assert (session, read) == (pid, 0)


def start_training(folder: Path, *command: str, grace_s: float = 5.0) -> asyncio.Task[TrainingExit]:
    return asyncio.create_task(
        run_training(
            command, env=dict(os.environ), cwd=None, log=folder / "log" / "out", grace_s=grace_s
        )
    )


async def wait_for_pids(folder: Path) -> list[int]:
    log = folder / "log" / "out"
    return await until_async(
        lambda: parse_pids(log.read_text()) if log.exists() else [], 20, "the training's first line"
    )


async def test_the_exit_of_a_training_has_the_code_and_the_last_lines(tmp_path: Path) -> None:
    training_exit = await start_training(tmp_path, "sh", "-c", "seq 100; exit 3")
    assert training_exit.code == 3
    assert training_exit.log_tail.splitlines() == [str(number) for number in range(81, 101)]
    assert str(training_exit.error).endswith("\n100 (the trainer exited with code 3)")
    assert (await start_training(tmp_path, "true")).error is None


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGKILL, "SIGKILL"), (int(signal.SIGRTMIN) + 6, "signal")]
    if sys.platform == "linux"
    else [(signal.SIGKILL, "SIGKILL")],
)
async def test_the_error_of_a_training_that_died_of_a_signal_names_the_signal(
    tmp_path: Path, number: int, name: str
) -> None:
    training_exit = await start_training(
        tmp_path, sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"
    )
    assert training_exit.code == -number
    assert f"the trainer was killed by {name}" in str(training_exit.error)


async def test_cancelling_a_training_ends_it_and_its_children_first(tmp_path: Path) -> None:
    training = start_training(tmp_path, sys.executable, "-c", FAMILY)
    family = await wait_for_pids(tmp_path)
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert not is_alive(family[0])
    await until_async(lambda: have_ended(family), 10, "the end of the training's child")


async def test_cancelling_a_training_that_is_just_being_started_leaves_nothing(
    tmp_path: Path,
) -> None:
    before = list_children()
    for turns in range(1, 8):
        training = start_training(tmp_path, "sleep", "600")
        for _ in range(turns):
            await asyncio.sleep(0)
        training.cancel()
        with pytest.raises(asyncio.CancelledError):
            await training
    assert list_children() <= before


async def test_when_the_guard_is_killed_the_worker_ends_the_training_and_its_children(
    tmp_path: Path,
) -> None:
    before = list_children()
    training = start_training(tmp_path, sys.executable, "-c", FAMILY)
    family = await wait_for_pids(tmp_path)
    (guard_process,) = list_children(recursive=False) - before
    guard_process.kill()
    assert (await training).code == -signal.SIGKILL
    await until_async(lambda: have_ended(family), 10, "the end of the training's child")


async def test_a_working_directory_that_is_gone_raises_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        await run_training(
            ["true"], env={}, cwd=str(tmp_path / "gone"), log=tmp_path / "out", grace_s=1
        )
