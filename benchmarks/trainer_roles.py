"""Trainings of the trainer benchmark: `loop ENDPOINT FOLDER ROUNDS STEPS`, and `begin`."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import optuna
import torch

import trialbus
from benchmarks import peers
from trialbus.messages import events

_Report: TypeAlias = Callable[[int, float], None]

STEP_S = 5e-3
_STUDY = trialbus.StudySpec(
    name="loop",
    params={"lr": trialbus.FloatParam(low=1e-4, high=1e-3, log=True)},
    objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
    n_trials=1,
    sampler=trialbus.Component(type="RandomSampler"),
    pruner=trialbus.Component(type="MedianPruner"),
)


def begin(_: trialbus.Trial) -> None:
    """Print the time: the first line of a training that has imported PyTorch."""
    print(json.dumps(time.time()), flush=True)


class Training:
    """Training of a network on noise, one batch a step, with steps of about `step_s` seconds."""

    def __init__(self, step_s: float) -> None:
        torch.set_num_threads(1)
        self._model = torch.nn.Sequential(
            torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
        )
        self._optimizer: Any = torch.optim.Adam(self._model.parameters())
        self._batch = 64
        while (duration := self._measure_step()) < step_s:
            self._batch = int(self._batch * min(2.0, 1.05 * step_s / duration)) + 1

    def step(self) -> float:
        x, y = torch.randn(self._batch, 64), torch.randint(10, (self._batch,))
        loss: Any = torch.nn.functional.cross_entropy(self._model(x), y)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.item())

    def _measure_step(self) -> float:
        durations: list[float] = []
        for _ in range(20):
            began = time.perf_counter()
            self.step()
            durations.append(time.perf_counter() - began)
        return statistics.median(durations)


def loop(endpoint: str, folder: str, rounds: int, steps: int) -> dict[str, float]:
    """Train in turn without reports and with each kind of report, one report a step.

    One block trains without reports, but beside a process that only wakes up as often: the cost
    of any second process on the machine.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    training = Training(STEP_S)
    costs: dict[str, list[float]] = {}
    blocks: dict[str, list[float]] = {}
    with ExitStack() as stack:
        reports: dict[str, _Report] = {
            "nobody": lambda step, loss: None,
            "idle_process": lambda step, loss: None,
            "trialbus": _make_trialbus_report(stack.enter_context(_attach(endpoint))),
        }
        addresses = {"optuna_sqlite": f"sqlite:///{Path(folder) / 'plain.db'}"}
        if peers.has_grpc():
            addresses["optuna_grpc"] = stack.enter_context(peers.open_address("grpc", Path(folder)))
        for name, address in addresses.items():
            reports[name] = _make_optuna_report(address)
        idle = stack.enter_context(_start_idle_process())
        for block in range(rounds):
            for name, report in reports.items():
                with _resume(idle) if name == "idle_process" else nullcontext():
                    began = time.perf_counter()
                    for step in range(block * steps, (block + 1) * steps):
                        loss = training.step()
                        before = time.perf_counter()
                        report(step, loss)
                        costs.setdefault(name, []).append(time.perf_counter() - before)
                    blocks.setdefault(name, []).append(time.perf_counter() - began)
    report_costs = sorted(costs["trialbus"])
    alone = blocks["nobody"]
    overheads = {name: compute_overhead_percent(b, alone) for name, b in blocks.items()}
    return {
        "step_ms": 1e3 * statistics.median(blocks["nobody"]) / steps,
        "report_p50_us": 1e6 * report_costs[len(report_costs) // 2],
        "report_p99_us": 1e6 * report_costs[len(report_costs) * 99 // 100],
        "loop_overhead_percent": overheads.pop("trialbus"),
        **{f"loop_overhead_{n}_percent": v for n, v in overheads.items() if n != "nobody"},
    }


def compute_overhead_percent(reporting: Sequence[float], alone: Sequence[float]) -> float:
    """Return by how many percent a block with reports takes longer, the median of the blocks."""
    return statistics.median(100 * (a / b - 1) for a, b in zip(reporting, alone, strict=True))


@contextmanager
def _start_idle_process() -> Generator[subprocess.Popen[bytes]]:
    """Run a process that sleeps for a step at a time, stopped until `_resume`."""
    code = f"import time\nwhile True: time.sleep({STEP_S})"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _resume(process: subprocess.Popen[bytes]) -> Generator[None]:
    process.send_signal(signal.SIGCONT)
    yield
    process.send_signal(signal.SIGSTOP)


def _attach(endpoint: str) -> trialbus.Trial:
    with trialbus.Publisher(endpoint) as publisher:
        publisher.publish(events.StudySubmitted(study="loop", spec=_STUDY, submission="loop"))
    return trialbus.attach(study="loop", endpoint=endpoint, timeout_s=60)


def _make_trialbus_report(trial: trialbus.Trial) -> _Report:
    def report(step: int, loss: float) -> None:
        trial.report(step, {"loss": loss})

    return report


def _make_optuna_report(address: str) -> _Report:
    """Return a function that reports to plain Optuna and asks whether to prune."""
    study = optuna.create_study(
        storage=peers.open_storage(address), pruner=optuna.pruners.MedianPruner()
    )
    trial = study.ask()

    def report(step: int, loss: float) -> None:
        trial.report(loss, step)
        trial.should_prune()

    return report


if __name__ == "__main__":
    if sys.argv[1] == "begin":
        with trialbus.attach() as attached:
            begin(attached)
    else:
        print(json.dumps(loop(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
