"""A training as a function, for tests of the runner, which reports the values of its trial."""

from __future__ import annotations

import os

import trialbus
from trialbus.callbacks import CallbackFactory, EvaluationCallback
from trialbus.messages.events import EvaluationComplete


class EvaluationCounter(EvaluationCallback):
    """Callback that counts evaluations."""

    evaluations = 0

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        self.evaluations += 1


def train(trial: trialbus.Trial) -> None:
    config = trial.config.nested()
    counter = EvaluationCounter()
    with CallbackFactory(config.get("callbacks")).build(trial) as callbacks:
        callbacks.add(counter)
        for step in range(trial.budget):
            with trial.checkpoint.save(step) as path:
                path.write_text("model")
            metrics = {
                "mean_reward": trial.params["agent.x"] - step,
                "gpu": float(os.environ.get("CUDA_VISIBLE_DEVICES") or -1),
                "depth": config["agent"]["depth"],
                "interval": trial.evaluation.interval or 0,
                "counted": counter.evaluations,
            }
            callbacks.report(step, metrics)


class PruningCallback(EvaluationCallback):
    """Callback that prunes a trial."""

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        if event.step == 1:
            raise trialbus.TrialPruned


def train_until_pruned(trial: trialbus.Trial) -> None:
    with CallbackFactory().build(trial) as callbacks:
        callbacks.add(PruningCallback())
        for step in range(trial.budget):
            callbacks.report(step, {"mean_reward": 1.0})
