"""The trainer's side: what a report costs in a real training loop, and how soon a trial begins."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmarks.trainer_roles
from benchmarks import peers, ray_tune
from benchmarks.bus import bench, result
from benchmarks.optimizer import Bench
from trialbus.messages import events
from trialbus.trainer.assignment import make_environment
from trialbus_services.worker.trainers import CommandTrainer, Trainer
from trialbus_services.worker.warm import WarmTrainer


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    steps: int
    starts: int


FULL = Size(rounds=60, steps=40, starts=15)
QUICK = Size(rounds=8, steps=20, starts=3)
_ROLES = benchmarks.trainer_roles.__name__


def run(size: Size) -> dict[str, Any]:
    """Measure everything and return it by name."""
    found: dict[str, Any] = _loop(size)
    skipped = found.pop("skipped")
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder, bench() as on:
        cold = CommandTrainer(command=[sys.executable, "-m", _ROLES, "begin"], runs=Path(folder))
        warm = WarmTrainer(
            f"{_ROLES}:begin", env={}, cwd=None, log=Path(folder) / "function.log", grace_s=1
        )
        found["cold_start_ms"] = asyncio.run(_starts(cold, on.endpoint, Path(folder), size))
        found["warm_start_ms"] = asyncio.run(_starts(warm, on.endpoint, Path(folder), size))
    return {**found, "skipped": skipped}


def _loop(size: Size) -> dict[str, Any]:
    """Train in a process of its own that reports in turn to nobody, to us and to Optuna."""
    skipped = {} if peers.has_grpc() else {"loop_overhead_optuna_grpc_percent": peers.NO_GRPC}
    with tempfile.TemporaryDirectory(prefix="trialbus-") as name:
        folder = Path(name)
        on = Bench(folder, f"sqlite:///{folder}/studies.db")
        try:
            command = [sys.executable, "-m", _ROLES, "loop", on.endpoint, str(folder)]
            process = subprocess.Popen(
                [*command, str(size.rounds), str(size.steps)], stdout=subprocess.PIPE, text=True
            )
            found = result(process)
        finally:
            on.end()
    if ray_tune.installed():
        command = [sys.executable, "-m", ray_tune.__name__, str(size.rounds), str(size.steps)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        found["loop_overhead_ray_tune_percent"] = result(process)["overhead"]
    else:
        skipped["loop_overhead_ray_tune_percent"] = ray_tune.MISSING
    return {**found, **dict.fromkeys(skipped), "skipped": skipped}


async def _starts(trainer: Trainer, endpoint: str, folder: Path, size: Size) -> float:
    """Return the median milliseconds from a worker's decision to the training's first line."""
    await trainer.start()
    taken: list[float] = []
    for number in range(size.starts):
        log = folder / f"{number}.log"
        trial = events.TrialAssigned(
            study="s", trial=number, request="", session="", params={"lr": 0.1}
        )
        began = time.time()
        done = await trainer.run(trial, make_environment(trial, endpoint), log)
        if done.code:
            raise RuntimeError(done.log_tail)
        taken.append((json.loads(log.read_text().splitlines()[0]) - began) * 1e3)
        log.unlink()
    await trainer.close()
    return statistics.median(taken)
