"""Training libraries: trainings report through the library's callbacks, and a prune ends each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

import trialbus
from support.client import load_study
from support.processes import Bus
from support.until import until
from trialbus.messages import events
from trialbus.testing import TestBus
from trialbus.trainer.assignment import make_environment

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = {"lr": 1e-2, "weight_decay": 1e-4, "width": 32, "dropout": 0.1}
CARTPOLE = {"learning_rate": 1e-3, "gamma": 0.98, "ent_coef": 0.0}


@pytest.fixture
def test_bus() -> Iterator[TestBus]:
    with TestBus() as test_bus:
        yield test_bus


def run_until_pruned(
    test_bus: TestBus, script: Path, environment: dict[str, str], timeout_s: float
) -> str:
    """Run a training, prune the trial after two evaluations, and return what it printed."""
    with subprocess.Popen(
        [sys.executable, script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as training:
        until(lambda: len(test_bus.events(trialbus.EvaluationComplete)) >= 2, timeout_s)
        test_bus.prune()
        printed, _ = training.communicate(timeout=50)
    assert training.returncode == 0, printed
    return printed


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("library", "params", "steps", "metric"),
    [
        ("lightning", DIGITS, [0, 1], "val/accuracy"),
        ("transformers", DIGITS, [90, 180], "eval_accuracy"),
        ("sb3", CARTPOLE, [512, 1024], "mean_reward"),
        ("lightgbm", DIGITS, [0, 1], "val/multi_error"),
    ],
    ids=["lightning", "transformers", "stable-baselines3", "lightgbm"],
)
def test_a_training_reports_its_evaluations_and_ends_when_it_is_pruned(
    test_bus: TestBus, library: str, params: dict[str, float], steps: list[int], metric: str
) -> None:
    (example,) = EXAMPLES.glob(f"{library}_*.py")
    environment = dict(os.environ)
    test_bus.assign(environment.__setitem__, params=params, budget=2000)
    run_until_pruned(test_bus, example, environment, timeout_s=60)
    evaluations = test_bus.events(trialbus.EvaluationComplete)
    assert [event.step for event in evaluations][:2] == steps
    assert all(metric in event.metrics for event in evaluations)
    assert len(evaluations) < 2000
    (finished,) = test_bus.events(trialbus.TrialFinished)
    assert (finished.state, finished.error) == ("pruned", None)


OBJECTIVE = """
import sys
import optuna
import trialbus
from trialbus_services.worker.objective import make_optuna_trial

{code}

with trialbus.attach() as trial:
    try:
        objective(make_optuna_trial(trial))
    except optuna.TrialPruned as error:
        sys.stdout.write(f"pruned: {{error}}")
        raise
"""

LIGHTGBM = """
import lightgbm
import numpy as np
from optuna_integration import LightGBMPruningCallback

def objective(trial):
    x = np.random.default_rng(0).random((200, 4))
    data = lightgbm.Dataset(x, x.sum(1))
    lightgbm.train(
        {"objective": "regression", "verbosity": -1, "num_threads": 1, "metric": "l2"},
        data, 100_000, valid_sets=[data],
        callbacks=[LightGBMPruningCallback(trial, "l2", "training")],
    )
"""

LIGHTNING = """
import torch
from lightning.pytorch import LightningModule, Trainer
from optuna_integration import PyTorchLightningPruningCallback

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, _):
        return self.layer(batch[0]).square().mean()
    def validation_step(self, batch, _):
        self.log("loss", self.layer(batch[0]).square().mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

def load():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 4)))

def objective(trial):
    Trainer(
        max_epochs=100_000, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[PyTorchLightningPruningCallback(trial, "loss")],
    ).fit(Model(), load(), load())
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("code", [LIGHTGBM, LIGHTNING], ids=["lightgbm", "lightning"])
def test_callbacks_of_optuna_integration_work_with_the_trial_of_an_objective(
    test_bus: TestBus, tmp_path: Path, code: str
) -> None:
    pytest.importorskip("optuna_integration")
    script = tmp_path / "objective.py"
    script.write_text(OBJECTIVE.format(code=code))
    assigned = events.TrialAssigned(
        study="test",
        trial=0,
        request="test",
        session="test",
        params={},
        define_by_run=events.DefineByRun(
            objectives=(trialbus.Objective(metric="loss", direction="minimize"),)
        ),
    )
    environment = {**os.environ, **make_environment(assigned, test_bus.endpoint)}
    assert "pruned: Trial was pruned at" in run_until_pruned(
        test_bus, script, environment, timeout_s=60
    )
    evaluations = test_bus.events(trialbus.EvaluationComplete)
    assert [event.step for event in evaluations][:2] == [0, 1]
    assert {name for event in evaluations for name in event.metrics} == {"loss"}
    assert [event.state for event in test_bus.events(trialbus.TrialFinished)] == ["pruned"]


DEVICES = """
import sys, torch, trialbus
from lightning.pytorch import LightningModule, Trainer
from trialbus.callbacks.lightning import TrialCallback

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, _):
        return self.layer(batch[0]).square().mean()
    def validation_step(self, batch, _):
        self.log("loss", self.layer(batch[0]).square().mean(), sync_dist=True)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

def load():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 4)))

with trialbus.attach() as trial:
    Trainer(
        max_epochs=100_000, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[TrialCallback(trial)],
    ).fit(Model(), load(), load())
sys.stdout.write(f"rank {trial.rank} was pruned at {trial.prune_command.step}\\n")
"""


@pytest.mark.timeout(120)
def test_ranks_that_lightning_starts_report_once_and_are_pruned_together(
    test_bus: TestBus, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(DEVICES)
    environment = dict(os.environ)
    test_bus.assign(environment.__setitem__, params={})
    printed = run_until_pruned(test_bus, script, environment, timeout_s=90)
    ends = re.findall(r"rank (\d) was pruned at (\d)", printed)
    assert sorted(ends) == [("0", "0"), ("1", "0")]
    steps = [event.step for event in test_bus.events(trialbus.EvaluationComplete)]
    assert steps == list(range(len(steps)))
    assert [event.state for event in test_bus.events(trialbus.TrialFinished)] == ["pruned"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("example", "metric", "direction"),
    [
        ("lightgbm_digits.py", "val/multi_error", "minimize"),
        ("sklearn_digits.py", "val/accuracy", "maximize"),
    ],
    ids=["lightgbm", "scikit-learn"],
)
def test_a_study_of_a_library_s_trainings_completes_and_prunes(
    bus: Bus, example: str, metric: str, direction: str
) -> None:
    study = bus.service(
        "study",
        "storage.url=sqlite:///studies.db",
        "study=digits",
        "study.n_trials=10",
        "pruner=threshold",
        "pruner.upper=0.2" if direction == "minimize" else "pruner.lower=0.8",
        f"study.objective.metric='{metric}'",
        f"study.objective.direction={direction}",
        f"trainer.command=[{sys.executable},{EXAMPLES / example}]",
    )
    assert study.wait(100) == 0, study.printed()
    states = [trial.state for trial in load_study(bus, "digits").trials]
    assert len(states) == 10
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}


class NoReceiver:
    """A receiver of evaluations that must not get any."""

    def report(self, step: int, metrics: Any) -> None:
        pytest.fail(f"{metrics!r} was reported at step {step}")


def test_an_evaluation_without_numbers_is_not_reported() -> None:
    from trialbus.callbacks import lightning, transformers

    unused: Any = None
    trainer: Any = SimpleNamespace(sanity_checking=False, current_epoch=0, callback_metrics={})
    lightning.TrialCallback(NoReceiver()).on_validation_end(trainer, unused)
    state: Any = SimpleNamespace(global_step=0)
    transformers.TrialCallback(NoReceiver()).on_evaluate(unused, state, unused, {"text": "abc"})
