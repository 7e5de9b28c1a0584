"""Benchmark of a whole study: from the command to the first trial, per trial, and to the prompt."""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import benchmarks.study_roles
from trialbus.protocol.endpoint import ENDPOINT_VARIABLE

_ROLES = benchmarks.study_roles.__name__


@dataclass(frozen=True)
class Size:
    """Numbers of studies and trials of a measurement."""

    rounds: int
    trials: int
    trials_beside_optuna: int


FULL = Size(rounds=5, trials=20, trials_beside_optuna=40)
QUICK = Size(rounds=1, trials=3, trials_beside_optuna=6)


@dataclass(frozen=True)
class Times:
    """Seconds of a study: from the command on, for each trial, and behind the last trial."""

    wall_s: float
    first_trial_s: float
    per_trial_s: float
    to_prompt_s: float


def run(size: Size) -> dict[str, Any]:
    """Measure all figures and return the values by name.

    The studies, an empty Python process and Optuna are measured in turn, since the machine's speed
    changes; what is measured is the fastest or the median of the rounds.
    """
    cold: list[Times] = []
    warm: list[Times] = []
    empty: list[float] = []
    ratios: list[float] = []
    for _ in range(size.rounds):
        cold.append(_run_study("command", size.trials, slots=1))
        warm.append(_run_study("function", size.trials, slots=1))
        empty += [_time(sys.executable, "-c", "pass") for _ in range(size.trials)]
        n_trials = size.trials_beside_optuna
        ours = _run_study("command", n_trials, slots=2).wall_s
        ratios.append(ours / _time(sys.executable, "-m", _ROLES, "optuna", str(n_trials)))
    empty_s = statistics.median(empty)
    return {
        "first_trial_s": min(times.first_trial_s for times in cold),
        "last_trial_to_prompt_s": min(times.to_prompt_s for times in cold),
        "overhead_per_trial_ms_cold": 1e3 * (min(t.per_trial_s for t in cold) - empty_s),
        "overhead_per_trial_ms_warm": 1e3 * min(times.per_trial_s for times in warm),
        "ratio_wall_optuna_subprocess": statistics.median(ratios),
        "skipped": {},
    }


def _run_study(trainer: str, n_trials: int, *, slots: int) -> Times:
    chosen = {
        "command": f"trainer.command=[{sys.executable},-m,{_ROLES},train]",
        "function": f"trainer.function={_ROLES}:train",
    }
    folder = Path(tempfile.mkdtemp(prefix="trialbus-"))
    try:
        began = time.time()
        _time(
            *(sys.executable, "-m", "trialbus_services", "study", f"trainer={trainer}"),
            *(chosen[trainer], "sampler=random", "pruner=none"),
            *("study.name=bench", f"study.n_trials={n_trials}", f"worker.slots={slots}"),
            *("study.objective.metric=loss", "~study.params"),
            "+study.params={x: {type: float, low: 0, high: 1}}",
            folder=folder,
        )
        ended = time.time()
        starts, ends = _read_times(folder / ".trialbus" / "events.db")
    finally:
        shutil.rmtree(folder)
    return Times(
        wall_s=ended - began,
        first_trial_s=starts[0] - began,
        per_trial_s=(ends[-1] - starts[0]) / max(1, n_trials - 1),
        to_prompt_s=ended - ends[-1],
    )


def _read_times(log: Path) -> tuple[list[float], list[float]]:
    """Return when each trial started and when it finished, from the log of a hub that has ended."""
    times: dict[str, list[float]] = {"trial_started": [], "trial_finished": []}
    with sqlite3.connect(f"file:{log}?mode=ro", uri=True) as database:
        for (body,) in database.execute("SELECT body FROM event ORDER BY offset"):
            event = msgspec.msgpack.decode(body)
            times.get(event["type"], []).append(event["at"])
    return times["trial_started"], times["trial_finished"]


def _time(*command: str, folder: Path | None = None) -> float:
    """Return the seconds that a command takes."""
    began = time.monotonic()
    env = benchmarks.study_roles.make_environment(without=ENDPOINT_VARIABLE)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return time.monotonic() - began
