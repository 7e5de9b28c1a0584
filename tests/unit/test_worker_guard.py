"""The guard between a worker and a training, as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from support.until import until
from trialbus_services.worker import guard

# Prints the process ids of a training and a child of its own, both of which outlast the test.
FAMILY = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


class Guarded:
    """A guard with a training, and the pipe that keeps both alive."""

    def __init__(self, command: Sequence[str], grace_s: float, folder: Path) -> None:
        self._out = folder / "out"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(guard.__file__), str(grace_s), *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def printed(self) -> str:
        return self._out.read_text()

    def family(self) -> list[int]:
        """Wait until the training has printed its processes, and return them."""
        return [int(pid) for pid in until(lambda: self.printed().split(), 20)]

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[object]:
    with ExitStack() as stack:

        def start(*command: str, grace_s: float = 5.0) -> Guarded:
            guarded = Guarded(command, grace_s, tmp_path)
            stack.callback(guarded.process.wait)
            stack.callback(guarded.process.kill)
            stack.callback(guarded.hang_up)
            return guarded

        yield start


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def nobody_lives(pids: list[int]) -> bool:
    return not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_of_the_training_passes_through(run: type[Guarded], code: int) -> None:
    assert run("sh", "-c", f"exit {code}").process.wait(20) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_training_that_died_of_a_signal_makes_the_guard_die_of_it(run: type[Guarded], number: int) -> None:
    assert run("sh", "-c", f"kill -{int(number)} $$").process.wait(20) == -number


def test_a_program_that_does_not_exist_is_named_with_its_key(run: type[Guarded]) -> None:
    guarded = run("no-such-program")
    assert guarded.process.wait(20) == guard.NOT_FOUND
    assert "trainer.command: there is no 'no-such-program'" in guarded.printed()


def test_a_file_that_is_no_program_is_named_with_its_key(run: type[Guarded], tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("not a program")
    guarded = run(str(file))
    assert guarded.process.wait(20) == guard.NOT_EXECUTABLE
    assert f"trainer.command: '{file}' cannot be run" in guarded.printed()


def test_when_the_worker_hangs_up_the_training_and_its_children_end(run: type[Guarded]) -> None:
    guarded = run(sys.executable, "-c", FAMILY)
    family = guarded.family()
    guarded.hang_up()
    assert guarded.process.wait(20) == -signal.SIGTERM
    until(lambda: nobody_lives(family), 10)


def test_when_the_worker_is_killed_the_training_and_its_children_end(tmp_path: Path) -> None:
    worker = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-I', '-S', sys.argv[1], '5', sys.executable, '-c', sys.argv[2]],"
        " stdin=subprocess.PIPE)\n"
        "time.sleep(600)\n"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", worker, str(guard.__file__), FAMILY], stdout=file)
    family = [int(pid) for pid in until(lambda: out.read_text().split(), 20)]
    process.kill()
    process.wait()
    until(lambda: nobody_lives(family), 10)


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel can kill a child with its parent")
def test_when_the_guard_is_killed_the_training_ends(run: type[Guarded]) -> None:
    guarded = run(sys.executable, "-c", FAMILY)
    training, child = guarded.family()
    guarded.process.kill()
    until(lambda: not alive(training), 10)
    os.kill(child, signal.SIGKILL)  # only the guard could have known of it


def test_a_training_that_ignores_sigterm_is_killed_after_the_grace(run: type[Guarded]) -> None:
    script = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    guarded = run(sys.executable, "-c", script, grace_s=0.2)
    family = guarded.family()
    guarded.hang_up()
    assert guarded.process.wait(20) == -signal.SIGKILL
    assert nobody_lives(family)


def test_what_a_training_leaves_behind_is_killed_when_it_ends(run: type[Guarded]) -> None:
    guarded = run("sh", "-c", "sleep 600 & echo $!")
    (child,) = guarded.family()
    assert guarded.process.wait(20) == 0
    until(lambda: not alive(child), 10)
