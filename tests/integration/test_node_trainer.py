"""A trainer in another language proves the protocol: a real study of JavaScript trainings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from support.processes import Bus
from trialbus_services.optimizer.attributes import METRICS

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"

needs_node = pytest.mark.skipif(
    shutil.which("npm") is None and "CI" not in os.environ, reason="there is no Node.js here"
)


@needs_node
@pytest.mark.timeout(120)
def test_a_study_of_trainers_in_javascript_is_recorded_and_pruned(bus: Bus) -> None:
    folder = bus.directory / "examples" / "node"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    overrides = ["study=node", "study.n_trials=8", "pruner.n_startup_trials=2", "sampler=random"]
    command = [sys.executable, "-m", "trialbus_services", "study"]
    study = bus.run("study", [*command, "--config-dir=examples/node/conf", *overrides])
    assert study.wait(60) == 0, study.printed()
    stored = optuna.load_study(
        study_name="node", storage=f"sqlite:///{bus.directory}/optuna_studies.db"
    )
    states = [trial.state for trial in stored.trials]
    assert len(states) == 8
    assert optuna.trial.TrialState.FAIL not in states
    assert optuna.trial.TrialState.PRUNED in states
    for trial in stored.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        assert sorted(trial.intermediate_values) == list(range(20))
        assert trial.value == trial.intermediate_values[19]
        assert set(trial.user_attrs[METRICS]) == {"val/loss", "train/loss"}
