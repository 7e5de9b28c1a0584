"""Programs that know nothing of trialbus: their metrics are collected while they train."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from support.processes import Bus

OUTPUT = """\
import argparse, time
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float)
parser.add_argument("--fast", action="store_true")
args = parser.parse_args()
for epoch in range(3):
    print(f"epoch {epoch} loss={args.x ** 2 + 1 / (epoch + 1):.4f} fast={args.fast}", flush=True)
    time.sleep(0.02)
"""
CSV = """\
import csv, os, pathlib, sys, time
x = float(sys.argv[1])
assert pathlib.Path.cwd() == pathlib.Path(os.environ["TRIALBUS_RUN_DIR"])
with open("results.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["epoch", "train/loss", "metrics/loss"])
    for epoch in range(1, 1000 if x > 1 else 4):
        writer.writerow([epoch, 9.0, x])
        file.flush()
        time.sleep(0.05)
"""
TENSORBOARD = """\
import os
from torch.utils.tensorboard import SummaryWriter
x = float(os.environ["TRIALBUS_PARAM_X"])
with SummaryWriter(os.environ["TRIALBUS_RUN_DIR"] + "/tb") as writer:
    for step in range(3):
        writer.add_scalar("eval/loss", x + 1 / (step + 1), step)
"""


def run(bus: Bus, program: str, study: str, *overrides: str) -> list[optuna.trial.FrozenTrial]:
    """Run a study of a program from one file, and return the trials that plain Optuna loads."""
    (bus.directory / "train.py").write_text(program)
    (bus.directory / "mine.yaml").write_text(study)
    storage = f"sqlite:///{bus.directory}/studies.db"
    process = bus.service("study", "mine.yaml", f"storage.url={storage}", *overrides)
    assert process.wait(90) == 0, process.printed()
    return optuna.load_study(study_name="mine", storage=storage).trials


def test_lines_of_the_output_are_evaluations(bus: Bus) -> None:
    study = """
trainer:
  command: python train.py
  params_as: flags
  switches: {fast: --fast}
  metrics: {stdout: 'epoch (?P<step>\\d+) loss=(?P<loss>\\S+)'}
study:
  name: mine
  n_trials: 3
  objective: {metric: loss, direction: minimize}
  params: {x: 'interval(0, 1)', fast: {type: categorical, choices: [true, false]}}
"""
    for trial in run(bus, OUTPUT, study):
        assert list(trial.intermediate_values) == [0, 1, 2]
        assert trial.value == pytest.approx(trial.params["x"] ** 2 + 1 / 3, abs=1e-3)


def test_a_growing_file_is_read_and_a_pruned_program_is_ended(bus: Bus) -> None:
    study = """
trainer:
  command: python train.py {x}
  cwd: '{run_dir}'
  metrics: {file: results.csv, names: {metrics/loss: loss}}
study:
  name: mine
  n_trials: 2
  objective: {metric: loss, direction: minimize}
  params: {x: {type: float, low: 0, high: 2}}
  enqueue: [{x: 0.5}, {x: 1.5}]
pruner: {type: ThresholdPruner, upper: 1.0, n_warmup_steps: 2}
worker: {slots: 1}
"""
    kept, pruned = run(bus, CSV, study)
    assert (kept.state, kept.value) == (TrialState.COMPLETE, 0.5)
    assert list(kept.intermediate_values) == [1, 2, 3]
    assert pruned.state == TrialState.PRUNED
    assert len(pruned.intermediate_values) < 900
    (folder,) = {path.parent.parent for path in Path(bus.directory).rglob("results.csv")}
    assert {path.name for path in folder.iterdir()} == {"0", "1"}


def test_scalars_of_tensorboard_are_evaluations(bus: Bus) -> None:
    study = """
trainer:
  command: [python, train.py]
  metrics: {tensorboard: '{run_dir}/tb'}
study:
  name: mine
  n_trials: 1
  objective: {metric: eval/loss, direction: minimize}
  params: {x: 'interval(0, 1)'}
"""
    (trial,) = run(bus, TENSORBOARD, study)
    assert list(trial.intermediate_values) == [0, 1, 2]
    assert trial.value == pytest.approx(trial.params["x"] + 1 / 3, abs=1e-5)
