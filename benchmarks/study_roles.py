"""Roles of the benchmark of studies: a training that does nothing, and a study of plain Optuna."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import trialbus

_TRAIN_ALONE = "import sys; print(float(sys.argv[1]))"


def train(trial: trialbus.Trial) -> None:
    """Report a single evaluation."""
    trial.report(0, {"loss": trial.params["x"]})


def make_environment(without: str) -> dict[str, str]:
    """Return the environment, without a variable, in which any folder finds this package."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {name: v for name, v in os.environ.items() if name != without} | {"PYTHONPATH": path}


def run_optuna(n_trials: int) -> None:
    """Run a study of plain Optuna with two threads and a process for each trial."""
    import optuna

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        command = [sys.executable, "-c", _TRAIN_ALONE, str(x)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        study = optuna.create_study(
            storage=f"sqlite:///{folder}/studies.db", sampler=optuna.samplers.RandomSampler()
        )
        study.optimize(objective, n_trials=n_trials, n_jobs=2)


if __name__ == "__main__":
    if sys.argv[1] == "optuna":
        run_optuna(int(sys.argv[2]))
    else:
        with trialbus.attach() as attached:
            train(attached)
