"""The optimizer: evaluations it decides on and records, how soon it prunes, what it needs."""

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
from benchmarks.bus import result
from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus_services.optimizer.pruning.pruning_decisions import build_pruning


@dataclass(frozen=True)
class Size:
    """How much is measured."""

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
    """A hub and an optimizer as processes, and others that talk to them."""

    def __init__(self, folder: Path, storage: str) -> None:
        self.endpoint = f"ipc://{folder}/hub.sock"
        self.storage = storage
        self._folder = folder
        hub = ["-m", "trialbus.hub", "--endpoint", self.endpoint, "--dir", str(folder / "log")]
        self._hub = self._start(hub)
        self.begin()

    def begin(self) -> None:
        """Start the optimizer, or start it again."""
        where = [f"bus.endpoint={self.endpoint}", f"bus.dir={self._folder}/log"]
        command = ["-m", "trialbus_services", "optimizer", *where, f"storage.url='{self.storage}'"]
        self.optimizer = self._start(command)

    def role(self, role: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", optimizer_roles.__name__, role, self.endpoint]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*command, *map(str, arguments)], stdin=pipe, stdout=pipe, text=True
        )

    def wait_recorded(self) -> float:
        """Wait until the optimizer has committed everything, and return when that was."""
        with Link(self.endpoint) as link, trialbus.Publisher(link=link) as publisher:
            while True:
                # Something that it reads at the very end, behind its own commands.
                publisher.publish(trialbus.Stop(study="none"))
                for _ in range(20):
                    optimizer = hub_status(link).durable.get("optimizer")
                    if optimizer is not None and optimizer.lag == 0:
                        return time.time()
                    time.sleep(0.02)

    def end(self) -> None:
        for process in (self.optimizer, self._hub):
            process.terminate()
            process.wait()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)


@contextmanager
def bench(storage: str | None = None) -> Generator[Bench]:
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
        made = Bench(Path(folder), storage or f"sqlite:///{folder}/studies.db")
        try:
            yield made
        finally:
            made.end()


def evaluations_per_s(size: Size, storage: str | None = None) -> float:
    """Report from eight processes; return evaluations per second, all decided and recorded."""
    with bench(storage) as on:
        result(on.role("study", _PUBLISHERS * (size.trials + 1)))
        # A few completed trials, so that there is a median to compare with.
        result(on.role("report", 20, size.steps, 1))
        on.wait_recorded()
        reporting = [
            on.role("report", size.trials // _PUBLISHERS, size.steps, 0) for _ in range(_PUBLISHERS)
        ]
        for process in reporting:
            assert process.stdout is not None
            process.stdout.readline()
        for process in reporting:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [result(process) for process in reporting]
        ended = on.wait_recorded()
    began = min(f["began"] for f in found)
    return sum(f["evaluations"] for f in found) / (ended - began)


def prune_latency(size: Size) -> dict[str, float]:
    """Return the time from a report to its prune command in the trainer, and the load beside it."""
    with bench() as on:
        result(on.role("study", 10**6))
        result(on.role("report", min(_PRUNE_FINISHED, size.finished), 5, 1))
        on.wait_recorded()
        load = on.role("load", _PRUNE_RATE, 8)
        found = result(on.role("prune", 200))
        load.terminate()
        load.communicate()
    return found


def large(size: Size) -> dict[str, float]:
    """Return what many finished trials cost: answers (with half of them), memory, a restart."""
    with bench() as on:
        result(on.role("study", 10**6))
        result(on.role("report", size.finished // 2, 100, 1))
        on.wait_recorded()
        answers = result(on.role("ask", 200))
        result(on.role("report", size.finished // 2, 100, 1))
        on.wait_recorded()
        family = psutil.Process(on.optimizer.pid)
        rss = family.memory_info().rss / 2**20
        on.optimizer.kill()
        on.optimizer.wait()
        began = time.time()
        on.begin()
        first = result(on.role("ask", 1))
        return {
            "ask_p50_ms_5000": answers["p50_ms"],
            "ask_p99_ms_5000": answers["p99_ms"],
            "rss_mb_10000": rss,
            "restart_s_10000": first["ended"] - began,
        }


def decision_us(finished: int) -> float:
    """Return what one decision of the median pruner costs beside so many finished trials."""
    steps = 20
    pruning = build_pruning(
        optuna.pruners.MedianPruner(), study_name="s", maximize=False, ask=lambda number: False
    )
    state = optuna.trial.TrialState.COMPLETE
    chance = random.Random(0)
    for number in range(finished):
        curve = {step: chance.random() for step in range(steps)}
        trial = optuna.trial.create_trial(state=state, value=0.0, intermediate_values=curve)
        trial.number = number
        pruning.load_trial(trial)
    costs: list[float] = []
    for number in range(finished, finished + 200):
        for step in range(steps):
            began = time.perf_counter()
            pruning.report(number, step, chance.random())
            costs.append(time.perf_counter() - began)
        pruning.forget(number)
    return statistics.median(costs) * 1e6


def decisions() -> dict[str, float]:
    """Return the cost of a decision beside 10,000 finished trials, and its growth from 100."""
    rounds = [(decision_us(100), decision_us(10_000)) for _ in range(3)]
    return {
        "decision_us_10000": statistics.median(many for _, many in rounds),
        "decision_growth_100_to_10000": statistics.median(many / few for few, many in rounds),
    }


def run(size: Size) -> dict[str, Any]:
    """Measure everything and return figures by name."""
    with ExitStack() as stack:
        postgresql = stack.enter_context(databases.postgresql())
        found: dict[str, Any] = {"evaluations_per_s": evaluations_per_s(size)}
        for name in ("sqlite", "grpc", "journal"):
            plain = peers.optuna_reports_per_s(name, _PUBLISHERS, size.plain_s)
            found[f"optuna_{name}_per_s"] = plain
            found[f"ratio_optuna_{name}"] = (
                plain if isinstance(plain, str) else found["evaluations_per_s"] / plain
            )
        if postgresql.startswith("postgresql"):
            ours = evaluations_per_s(size, postgresql)
            plain = peers.optuna_reports_per_s(postgresql, _PUBLISHERS, size.plain_s)
            found |= {"evaluations_per_s_postgresql": ours, "optuna_postgresql_per_s": plain}
            found["ratio_optuna_postgresql"] = plain if isinstance(plain, str) else ours / plain
        else:
            found["evaluations_per_s_postgresql"] = postgresql
    found |= prune_latency(size)
    found |= large(size)
    found |= decisions()
    skipped = {name: value for name, value in found.items() if isinstance(value, str)}
    return found | dict.fromkeys(skipped) | {"skipped": skipped}


__all__ = ["FULL", "QUICK", "Size", "run"]
