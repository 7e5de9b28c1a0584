"""Benchmark of the trainer: cost of a report in a real training loop, and start of a trial."""

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
from benchmarks.bus import read_result, start_bench
from benchmarks.optimizer import Bench
from trialbus.messages import events
from trialbus.trainer.assignment import make_environment
from trialbus_services.worker.trainers import CommandTrainer, Trainer
from trialbus_services.worker.warm import WarmTrainer


@dataclass(frozen=True)
class Size:
    """Numbers of rounds, steps and starts of a measurement."""

    rounds: int
    steps: int
    starts: int


FULL = Size(rounds=60, steps=40, starts=15)
QUICK = Size(rounds=8, steps=20, starts=3)
_ROLES = benchmarks.trainer_roles.__name__


def run(size: Size) -> dict[str, Any]:
    """Measure all figures and return the values by name."""
    figures: dict[str, Any] = _measure_loop(size)
    skipped = figures.pop("skipped")
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder, start_bench() as bench:
        cold = CommandTrainer(command=[sys.executable, "-m", _ROLES, "begin"], runs=Path(folder))
        warm = WarmTrainer(
            f"{_ROLES}:begin", env={}, cwd=None, log=Path(folder) / "function.log", grace_s=1
        )
        figures["cold_start_ms"] = asyncio.run(
            _measure_start_ms(cold, bench.endpoint, Path(folder), size)
        )
        figures["warm_start_ms"] = asyncio.run(
            _measure_start_ms(warm, bench.endpoint, Path(folder), size)
        )
    return {**figures, "skipped": skipped}


def _measure_loop(size: Size) -> dict[str, Any]:
    """Train in a process that reports in turn to nobody, to trialbus and to Optuna."""
    skipped = {} if peers.has_grpc() else {"loop_overhead_optuna_grpc_percent": peers.NO_GRPC}
    with tempfile.TemporaryDirectory(prefix="trialbus-") as name:
        folder = Path(name)
        bench = Bench(folder, f"sqlite:///{folder}/studies.db")
        try:
            command = [sys.executable, "-m", _ROLES, "loop", bench.endpoint, str(folder)]
            process = subprocess.Popen(
                [*command, str(size.rounds), str(size.steps)], stdout=subprocess.PIPE, text=True
            )
            figures = read_result(process)
        finally:
            bench.stop()
    if ray_tune.is_installed():
        command = [sys.executable, "-m", ray_tune.__name__, str(size.rounds), str(size.steps)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        figures["loop_overhead_ray_tune_percent"] = read_result(process)["overhead"]
    else:
        skipped["loop_overhead_ray_tune_percent"] = ray_tune.MISSING
    return {**figures, **dict.fromkeys(skipped), "skipped": skipped}


async def _measure_start_ms(trainer: Trainer, endpoint: str, folder: Path, size: Size) -> float:
    """Return the median milliseconds from a worker's decision to the training's first line."""
    await trainer.start()
    durations: list[float] = []
    for number in range(size.starts):
        log = folder / f"{number}.log"
        trial = events.TrialAssigned(
            study="s", trial=number, request="", session="", params={"lr": 0.1}
        )
        began = time.time()
        exit_ = await trainer.run(trial, make_environment(trial, endpoint), log)
        if exit_.code:
            raise RuntimeError(exit_.log_tail)
        durations.append((json.loads(log.read_text().splitlines()[0]) - began) * 1e3)
        log.unlink()
    await trainer.close()
    return statistics.median(durations)
