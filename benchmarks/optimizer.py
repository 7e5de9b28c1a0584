"""Benchmark of the optimizer: evaluations per second, latency of prunes, memory, restart."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil

import trialbus
from benchmarks import databases, optimizer_roles, peers
from benchmarks.bus import read_result
from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus_services.optimizer.pruning.pruning_decisions import build_pruning
from trialbus_services.optimizer.reading import READING


@dataclass(frozen=True)
class Size:
    """Numbers of trials and steps of a measurement."""

    steps: int
    trials: int
    finished: int
    plain_s: float


FULL = Size(steps=400, trials=400, finished=10_000, plain_s=10.0)
QUICK = Size(steps=50, trials=80, finished=500, plain_s=2.0)
_PUBLISHERS = 8
_PRUNE_RATE = 1000
_PRUNE_FINISHED = 1000


class Bench:
    """A hub, an optimizer and their clients, each a process."""

    def __init__(self, folder: Path, storage: str) -> None:
        self.endpoint = f"ipc://{folder}/hub.sock"
        self.storage = storage
        self._folder = folder
        hub = ["-m", "trialbus.hub", "--endpoint", self.endpoint, "--dir", str(folder / "log")]
        self._hub = self._start(hub)
        self.start_optimizer()

    def start_optimizer(self) -> None:
        """Start the optimizer, also after its end."""
        overrides = [f"bus.endpoint={self.endpoint}", f"bus.dir={self._folder}/log"]
        command = [
            "-m",
            "trialbus_services",
            "optimizer",
            *overrides,
            f"storage.url='{self.storage}'",
        ]
        self.optimizer = self._start(command)

    def start_role(self, role: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", optimizer_roles.__name__, role, self.endpoint]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*command, *map(str, arguments)], stdin=pipe, stdout=pipe, text=True
        )

    def wait_recorded(self) -> float:
        """Wait until the optimizer has committed all events, and return the time."""
        with Link(self.endpoint) as link, trialbus.Publisher(link=link) as publisher:
            while True:
                # The optimizer reads this event last, after its own commands.
                publisher.publish(trialbus.Stop(study="none"))
                for _ in range(20):
                    optimizer = hub_status(link).durable.get(READING)
                    if optimizer is not None and optimizer.lag == 0:
                        return time.time()
                    time.sleep(0.02)

    def stop(self) -> None:
        for process in (self.optimizer, self._hub):
            process.terminate()
            process.wait()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)


@contextmanager
def start_bench(storage: str | None = None) -> Generator[Bench]:
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
        bench = Bench(Path(folder), storage or f"sqlite:///{folder}/studies.db")
        try:
            yield bench
        finally:
            bench.stop()


def measure_evaluations_per_s(size: Size, storage: str | None = None) -> float:
    """Report from eight processes; return evaluations per second, all decided and recorded."""
    with start_bench(storage) as bench:
        read_result(bench.start_role("study", _PUBLISHERS * (size.trials + 1)))
        # A few completed trials, so that there is a median to compare with.
        read_result(bench.start_role("report", 20, size.steps, 1))
        bench.wait_recorded()
        reporting = [
            bench.start_role("report", size.trials // _PUBLISHERS, size.steps, 0)
            for _ in range(_PUBLISHERS)
        ]
        for process in reporting:
            assert process.stdout is not None
            process.stdout.readline()
        for process in reporting:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [read_result(process) for process in reporting]
        ended = bench.wait_recorded()
    began = min(r["began"] for r in results)
    return sum(r["evaluations"] for r in results) / (ended - began)


def measure_prune_latency(size: Size) -> dict[str, float]:
    """Return percentiles of the time from a report to the prune command, under load."""
    with start_bench() as bench:
        read_result(bench.start_role("study", 10**6))
        read_result(bench.start_role("report", min(_PRUNE_FINISHED, size.finished), 5, 1))
        bench.wait_recorded()
        load = bench.start_role("load", _PRUNE_RATE, 8)
        latencies = read_result(bench.start_role("prune", 200))
        load.terminate()
        load.communicate()
    return latencies


def measure_param_requests(size: Size) -> dict[str, float]:
    """Return percentiles of the time in which a training gets a param that it asks for."""
    with start_bench() as bench:
        return read_result(bench.start_role("params", size.steps))


def measure_large_study(size: Size) -> dict[str, float]:
    """Return latency of requests, memory and restart of an optimizer with many finished trials."""
    with start_bench() as bench:
        read_result(bench.start_role("study", 10**6))
        read_result(bench.start_role("report", size.finished // 2, 100, 1))
        bench.wait_recorded()
        answers = read_result(bench.start_role("ask", 200))
        read_result(bench.start_role("report", size.finished // 2, 100, 1))
        bench.wait_recorded()
        family = psutil.Process(bench.optimizer.pid)
        rss = family.memory_info().rss / 2**20
        bench.optimizer.kill()
        bench.optimizer.wait()
        began = time.time()
        bench.start_optimizer()
        first = read_result(bench.start_role("ask", 1))
        return {
            "ask_p50_ms_5000": answers["p50_ms"],
            "ask_p99_ms_5000": answers["p99_ms"],
            "rss_mb_10000": rss,
            "restart_s_10000": first["ended"] - began,
        }


def measure_decision_us(finished: int) -> float:
    """Return the time of one decision of the median pruner beside `finished` trials."""
    steps = 20
    pruning = build_pruning(
        optuna.pruners.MedianPruner(), study_name="s", maximize=False, ask=lambda number: False
    )
    state = optuna.trial.TrialState.COMPLETE
    chance = random.Random(0)
    trials: list[optuna.trial.FrozenTrial] = []
    for number in range(finished):
        curve = {step: chance.random() for step in range(steps)}
        trial = optuna.trial.create_trial(state=state, value=0.0, intermediate_values=curve)
        trial.number = number
        trials.append(trial)
    pruning.load_trials(trials)
    costs: list[float] = []
    for number in range(finished, finished + 200):
        for step in range(steps):
            began = time.perf_counter()
            pruning.report(number, step, chance.random())
            costs.append(time.perf_counter() - began)
        pruning.finish(number, optuna.trial.TrialState.FAIL)  # of no effect on later decisions
    return statistics.median(costs) * 1e6


def measure_decisions() -> dict[str, float]:
    """Return the time of a decision beside 10,000 finished trials, and the ratio to 100 trials."""
    rounds = [(measure_decision_us(100), measure_decision_us(10_000)) for _ in range(3)]
    return {
        "decision_us_10000": statistics.median(many for _, many in rounds),
        "decision_growth_100_to_10000": statistics.median(many / few for few, many in rounds),
    }


def run(size: Size) -> dict[str, Any]:
    """Measure all figures and return the values by name."""
    with ExitStack() as stack:
        postgresql = stack.enter_context(databases.start_postgresql())
        figures: dict[str, Any] = {"evaluations_per_s": measure_evaluations_per_s(size)}
        for name in ("sqlite", "grpc", "journal"):
            plain = peers.measure_optuna_reports_per_s(name, _PUBLISHERS, size.plain_s)
            figures[f"optuna_{name}_per_s"] = plain
            figures[f"ratio_optuna_{name}"] = (
                plain if isinstance(plain, str) else figures["evaluations_per_s"] / plain
            )
        if postgresql.startswith("postgresql"):
            rate = measure_evaluations_per_s(size, postgresql)
            plain = peers.measure_optuna_reports_per_s(postgresql, _PUBLISHERS, size.plain_s)
            figures |= {"evaluations_per_s_postgresql": rate, "optuna_postgresql_per_s": plain}
            figures["ratio_optuna_postgresql"] = plain if isinstance(plain, str) else rate / plain
        else:
            figures["evaluations_per_s_postgresql"] = postgresql
    figures |= measure_prune_latency(size)
    figures |= measure_param_requests(size)
    figures |= measure_large_study(size)
    figures |= measure_decisions()
    skipped = {name: value for name, value in figures.items() if isinstance(value, str)}
    return figures | dict.fromkeys(skipped) | {"skipped": skipped}


__all__ = ["FULL", "QUICK", "Size", "run"]
