"""A training as a function, for tests of the runner: it tells what reached it."""

from __future__ import annotations

import os

import trialbus
from trialbus.callbacks import CallbackFactory, EvaluationCallback
from trialbus.messages.events import EvaluationComplete


class Heard(EvaluationCallback):
    """Counts the evaluations that it hears of."""

    evaluations = 0

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        self.evaluations += 1


def train(trial: trialbus.Trial) -> None:
    config = trial.config.nested()
    heard = Heard()
    with CallbackFactory(config.get("callbacks")).build(trial) as callbacks:
        callbacks.add(heard)
        for step in range(trial.budget):
            with trial.checkpoint.save(step) as path:
                path.write_text("model")
            metrics = {
                "mean_reward": trial.params["agent.x"] - step,
                "gpu": float(os.environ.get("CUDA_VISIBLE_DEVICES") or -1),
                "depth": config["agent"]["depth"],
                "interval": trial.evaluation.interval or 0,
                "heard": heard.evaluations,
            }
            callbacks.report(step, metrics)


class Pruning(EvaluationCallback):
    """Says by itself that a training is to end."""

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        if event.step == 1:
            raise trialbus.TrialPruned


def pruned(trial: trialbus.Trial) -> None:
    with CallbackFactory().build(trial) as callbacks:
        callbacks.add(Pruning())
        for step in range(trial.budget):
            callbacks.report(step, {"mean_reward": 1.0})
