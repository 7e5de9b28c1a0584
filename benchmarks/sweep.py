"""Benchmark of sweeps: wall time and idle slots beside hydra-optuna-sweeper, and compute saved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmarks.sweep_app

_APP = str(benchmarks.sweep_app.__file__)
_SLOTS = 2
#: Optuna below 3 needs SQLAlchemy below 2.
_PACKAGES = (
    *("hydra-core==1.3.2", "omegaconf<2.4", "hydra-optuna-sweeper>=1.3.0.dev0,<1.4"),
    *("hydra-joblib-launcher", "sqlalchemy<2"),
)
_BESIDE = ("wall_ratio_hydra_optuna_sweeper", "idle_percent_hydra_optuna_sweeper")


@dataclass(frozen=True)
class Size:
    """Number of jobs, and the unit of their uneven lengths."""

    jobs: int
    unit_s: float


FULL = Size(24, 6.0)
QUICK = Size(8, 0.3)


@dataclass(frozen=True)
class Times:
    """When each job of a sweep began and ended, and how long each would have been."""

    jobs: list[tuple[float, float, float]]

    @property
    def wall_s(self) -> float:
        """Seconds from the start of the first job to the end of the last."""
        return max(end for _, end, _ in self.jobs) - min(start for start, _, _ in self.jobs)

    @property
    def idle_percent(self) -> float:
        """Share of the slots' time in which no job ran, for as long as jobs were left to start."""
        began, left = min(job[0] for job in self.jobs), max(job[0] for job in self.jobs)
        busy_s = sum(min(end, left) - start for start, end, _ in self.jobs)
        return 100 * (1 - busy_s / (_SLOTS * (left - began)))

    @property
    def saved_percent(self) -> float:
        """Share of the jobs' time that pruning saved."""
        ran_s = sum(end - start for start, end, _ in self.jobs)
        return 100 * (1 - ran_s / sum(full_s for _, _, full_s in self.jobs))


def run(size: Size) -> dict[str, Any]:
    """Measure all figures and return the values by name."""
    ours = _sweep([sys.executable], size, ["hydra/sweeper=trialbus", "+reports=false"])
    pruned = _sweep(
        [sys.executable],
        size,
        [
            *("hydra/sweeper=trialbus", "+reports=true", "hydra.sweeper.metric=loss"),
            "hydra.sweeper.pruner={type: MedianPruner, n_startup_trials: 3}",
        ],
    )
    figures: dict[str, Any] = {
        "idle_percent": ours.idle_percent,
        "compute_saved_percent": pruned.saved_percent,
        **dict.fromkeys(_BESIDE),
        "skipped": {},
    }
    try:
        python = _make_environment()
        theirs = _sweep(
            [str(python)],
            size,
            [
                *("hydra/sweeper=optuna", "+reports=false", "hydra/launcher=joblib"),
                f"hydra.launcher.n_jobs={_SLOTS}",
            ],
        )
    except (OSError, RuntimeError) as error:
        reason = f"hydra-optuna-sweeper cannot be run: {str(error).strip().splitlines()[-1]}"
        figures["skipped"] = dict.fromkeys(_BESIDE, reason)
        return figures
    figures["wall_ratio_hydra_optuna_sweeper"] = ours.wall_s / theirs.wall_s
    figures["idle_percent_hydra_optuna_sweeper"] = theirs.idle_percent
    return figures


def _sweep(python: Sequence[str], size: Size, arguments: Sequence[str]) -> Times:
    """Run a sweep of the application in a folder of its own, and return the times of its jobs."""
    folder = Path(tempfile.mkdtemp(prefix="trialbus-"))
    try:
        file = folder / "times"
        _run(
            *(*python, _APP, "-m", *arguments, f"+unit_s={size.unit_s}", "+x=interval(-1,1)"),
            *("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1"),
            *(f"hydra.sweeper.n_jobs={_SLOTS}", f"hydra.sweeper.n_trials={size.jobs}"),
            "hydra.sweeper.max_failure_rate=1",
            cwd=folder,
            env={benchmarks.sweep_app.TIMES_VARIABLE: str(file)},
        )
        lines = [[float(text) for text in line.split()] for line in file.open(encoding="utf-8")]
    finally:
        shutil.rmtree(folder)
    return Times([(start, end, full_s) for _, start, end, full_s in lines])


def _make_environment() -> Path:
    """Return the Python of an environment with hydra-optuna-sweeper, made once.

    Raises:
        RuntimeError: The packages cannot be installed.
    """
    folder = Path(sys.prefix) / "hydra-optuna-sweeper"
    python = folder / "bin" / "python"
    done = folder / "done"
    if not done.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", *_PACKAGES)
        done.touch()
    return python


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIALBUS_")}
    done = subprocess.run(
        command, cwd=cwd, env={**kept, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
