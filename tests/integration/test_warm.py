"""Functions in warm processes: a process for each trial, with the guarantees of any training."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

import trialbus
from support.processes import Bus
from support.until import until, until_async
from trialbus.testing import TestBus
from trialbus.trainer.assignment import make_environment
from trialbus_services.worker.warm import WarmTrainer

TRAININGS = """
import atexit, json, os, random, signal, subprocess, sys, threading, time
import numpy
import trialbus

IMPORTED_BY = os.getpid()
print("imported", end="")

def value(trial):
    return trial.params["lr"] * 2

def write(trial):
    (trial.run_dir / "lr.txt").write_text(str(trial.params["lr"]))
    return trial.params["lr"]

def show(trial):
    trial.report(0, {"loss": 1.0})
    print(json.dumps({
        "imported_by": IMPORTED_BY,
        "pid": os.getpid(),
        "group": os.getpgrp(),
        "folder": os.getcwd(),
        "params": dict(trial.params),
        "drawn": [random.random(), float(numpy.random.rand())],
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGCHLD)],
        "stdin": sys.stdin.read(),
        "open": sorted(os.listdir("/proc/self/fd")),
    }))

def family(trial):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(os.getpid(), child.pid, flush=True)
    time.sleep(600)

def late(trial):
    def speak():
        time.sleep(0.2)
        print("thread")
    atexit.register(print, "at exit")
    threading.Thread(target=speak).start()

def raises(trial):
    raise RuntimeError("no luck")

def leaves(trial):
    sys.exit(3)

def crashes(trial):
    os.kill(os.getpid(), signal.SIGSEGV)

def pruned(trial):
    while True:
        trial.report(0, {"loss": 1.0}, wait=0.01)
"""

CANNOT_BE_IMPORTED = {
    "missing": ("", "cannot be imported: bad has no 'train'"),
    "broken": ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
    "leaving": ("raise SystemExit(4)", "cannot be imported: SystemExit: 4"),
    "killed": ("import os; os._exit(1)", "the process that imports it ended"),
    "threads": (
        """
import threading, time
threading.Thread(target=time.sleep, args=(600,), name="beat", daemon=True).start()
def train(trial): pass
""",
        "RuntimeError: importing the module starts threads .beat., which a fork ends",
    ),
    "computing": (
        """
import torch
torch.set_num_threads(2)
torch.ones(1 << 22).tanh_()
def train(trial): pass
""",
        "RuntimeError: importing the module computes on several threads",
    ),
    # The machines of the tests have no GPU: a fake PyTorch says that CUDA is initialized.
    "cuda": (
        """
import sys, types
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)
def train(trial): pass
""",
        "RuntimeError: importing the module initializes CUDA",
    ),
}

# A worker that runs a trial until the worker is killed.
WORKER = """
import asyncio, os, sys
from pathlib import Path
import trialbus
from trialbus_services.worker.warm import WarmTrainer

async def main(folder):
    log = Path(folder, "f.log")
    trainer = WarmTrainer("trainings:family", env={}, cwd=folder, log=log, grace_s=1)
    trial = trialbus.TrialAssigned(study="s", trial=0, request="", session="", params={})
    await trainer.run(trial, {}, Path(folder, "trial.log"))

asyncio.run(main(sys.argv[1]))
"""


def make_assignment(number: int = 0) -> trialbus.TrialAssigned:
    return trialbus.TrialAssigned(
        study="s", trial=number, request="", session="", params={"lr": 0.25}
    )


class Warm:
    """Warm trainers of functions, on a bus in the test."""

    def __init__(self, bus: TestBus, folder: Path) -> None:
        self.bus = bus
        self.folder = folder
        (folder / "trainings.py").write_text(TRAININGS)
        self.trainers: list[WarmTrainer] = []

    async def start(self, function: str) -> WarmTrainer:
        trainer = WarmTrainer(
            f"trainings:{function}",
            env={"EXTRA": "1"},
            cwd=str(self.folder),
            log=self.folder / "function.log",
            grace_s=1.0,
        )
        self.trainers.append(trainer)
        await trainer.start()
        return trainer

    def locate_log(self, number: int = 0) -> Path:
        return self.folder / f"{number}.log"

    def run(self, trainer: WarmTrainer, number: int = 0) -> asyncio.Task[Any]:
        trial = make_assignment(number)
        env = make_environment(trial, self.bus.endpoint)
        return asyncio.create_task(trainer.run(trial, env, self.locate_log(number)))

    async def wait_for_family(self, number: int = 0) -> list[int]:
        def read_pids() -> list[int]:
            log = self.locate_log(number)
            lines = [x for x in log.read_text().splitlines() if x] if log.exists() else []
            return [int(pid) for pid in lines[-1].split()] if lines and lines[-1][0] != "t" else []

        return await until_async(read_pids, 20, "the training's first line")

    def get_end(self) -> trialbus.TrialFinished:
        (event,) = self.bus.events(trialbus.TrialFinished)
        return event


@pytest_asyncio.fixture
async def warm(tmp_path: Path) -> AsyncIterator[Warm]:
    with TestBus() as bus:
        warm = Warm(bus, tmp_path)
        yield warm
        for trainer in warm.trainers:
            await trainer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trainings.py").write_text(TRAININGS)
    return tmp_path


def have_ended(*pids: int) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


async def test_each_trial_is_a_process_of_its_own_with_the_module_imported_once(warm: Warm) -> None:
    trainer = await warm.start("show")
    printed: list[dict[str, Any]] = []
    for number in range(3):
        done = await warm.run(trainer, number)
        assert done.code == 0, done.log_tail
        printed.append(json.loads(warm.locate_log(number).read_text().splitlines()[-1]))
    assert len({trial["imported_by"] for trial in printed}) == 1
    assert len({trial["pid"] for trial in printed}) == 3
    assert all(trial["pid"] == trial["group"] != trial["imported_by"] for trial in printed)
    assert all(trial["folder"] == str(warm.folder) for trial in printed)
    assert all(trial["params"] == {"lr": 0.25} for trial in printed)
    assert all(trial["stdin"] == "" for trial in printed)
    assert len({trial["signals"][1] for trial in printed} | {str(signal.SIG_DFL)}) == 1
    assert len({tuple(trial["drawn"]) for trial in printed}) == 3
    assert len({number for trial in printed for number in trial["drawn"]}) == 6
    # The output of the import is in the log of the fork server, and once.
    assert (warm.folder / "function.log").read_text() == "imported"
    assert len(warm.bus.events(trialbus.EvaluationComplete)) == 3


async def test_what_the_function_returns_is_the_objective(warm: Warm) -> None:
    done = await warm.run(await warm.start("value"))
    assert done.code == 0, done.log_tail
    assert (warm.get_end().state, warm.get_end().values) == ("complete", [0.5])


async def test_a_trial_ends_as_an_ordinary_process_does(warm: Warm) -> None:
    done = await warm.run(await warm.start("late"))
    assert done.log_tail.splitlines()[-2:] == ["thread", "at exit"]


@pytest.mark.parametrize(
    ("function", "code", "state"),
    [
        ("raises", 1, "failed"),
        ("leaves", 3, "failed"),
        ("crashes", -signal.SIGSEGV, None),
        ("pruned", 0, "pruned"),
    ],
)
async def test_exit_codes_signals_and_the_log_reach_the_worker(
    warm: Warm, function: str, code: int, state: str | None
) -> None:
    running = warm.run(await warm.start(function))
    if state == "pruned":
        await asyncio.to_thread(warm.bus.prune, study="s")
    done = await running
    assert done.code == code, done.log_tail
    if state is not None:
        assert warm.get_end().state == state
    if function == "raises":
        assert done.log_tail.endswith("RuntimeError: no luck")
        assert "RuntimeError: no luck" in str(warm.get_end().error)


async def test_a_training_that_is_given_up_ends_with_all_it_started(warm: Warm) -> None:
    running = warm.run(await warm.start("family"))
    family = await warm.wait_for_family()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_async(lambda: have_ended(*family), 20)
    assert warm.get_end().state == "preempted"


async def test_a_guard_that_is_killed_takes_its_training_with_it(warm: Warm) -> None:
    running = warm.run(await warm.start("family"))
    family = await warm.wait_for_family()
    os.kill(psutil.Process(family[0]).ppid(), signal.SIGKILL)
    done = await running
    assert done.code == -signal.SIGKILL
    await until_async(lambda: have_ended(*family), 20)


async def test_when_the_fork_server_is_killed_trials_go_on_and_the_next_one_gets_another(
    warm: Warm,
) -> None:
    trainer = await warm.start("family")
    first = warm.run(trainer)
    family = await warm.wait_for_family()
    server = psutil.Process(psutil.Process(family[0]).ppid()).ppid()
    os.kill(server, signal.SIGKILL)
    second = warm.run(trainer, 1)
    other = await warm.wait_for_family(1)
    assert not first.done()
    assert not have_ended(family[0])
    for running in (first, second):
        running.cancel()
    await asyncio.wait([first, second])
    await until_async(lambda: have_ended(*family, *other), 20)


def test_a_worker_that_is_killed_takes_its_trainings_and_its_server_with_it(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)]) as worker:
        log = folder / "trial.log"

        def family() -> list[int]:
            lines = log.read_text().splitlines() if log.exists() else []
            numbers = [line for line in lines if line.replace(" ", "").isdigit()]
            return [int(pid) for pid in numbers[0].split()] if numbers else []

        pids = until(family, 20)
        guard = psutil.Process(pids[0]).ppid()
        server = psutil.Process(guard).ppid()
        worker.kill()
        until(lambda: have_ended(*pids, guard, server), 20)


@pytest.mark.parametrize("kind", CANNOT_BE_IMPORTED)
async def test_a_module_that_cannot_be_forked_is_refused_when_the_worker_starts(
    warm: Warm, kind: str
) -> None:
    text, message = CANNOT_BE_IMPORTED[kind]
    (warm.folder / "bad.py").write_text(text)
    trainer = WarmTrainer(
        "bad:train", env={}, cwd=str(warm.folder), log=warm.folder / "f.log", grace_s=1
    )
    with pytest.raises(trialbus.SpecError, match=f"trainer.function: 'bad:train': {message}"):
        await trainer.start()


@pytest.mark.timeout(120)
def test_a_study_of_a_function_completes_and_its_trials_have_folders_for_their_files(
    bus: Bus, folder: Path
) -> None:
    study = bus.service(
        "study",
        "study=digits",
        "study.n_trials=4",
        "study.objective.metric=x",
        "trainer=function",
        f"trainer.cwd={folder}",
        "trainer.function=trainings:write",
        "~study.params",
        "+study.params={lr:{type:float,low:0,high:1}}",
    )
    assert study.wait(100) == 0, study.printed()
    assert "4 complete" in study.printed()
    files = [bus.directory / "log" / "runs" / "digits" / f"{n}" / "lr.txt" for n in range(4)]
    assert all(0 <= float(file.read_text()) <= 1 for file in files)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.function=trainings"], "trainer.function: 'trainings' is not module:function"),
        (["trainer.function=no.such:train"], "there is no module 'no'"),
        (["+trainer.command=[echo]", "trainer.function=a:b"], "both a command and a function"),
    ],
    ids=["no function", "no module", "a command as well"],
)
def test_a_function_that_cannot_be_run_ends_the_worker_with_a_word(
    bus: Bus, overrides: list[str], message: str
) -> None:
    bus.hub()
    worker = bus.service("worker", "study=digits", "trainer=function", *overrides)
    assert worker.wait(30) == 2
    assert message in worker.printed()
