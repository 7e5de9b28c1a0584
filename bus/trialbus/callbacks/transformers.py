"""Hugging Face Transformers: reports every evaluation. Needs `trialbus[transformers]`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trialbus.callbacks.evaluation import EvaluationReceiver


class TrialCallback(TrainerCallback):
    """A callback of Transformers that reports every evaluation at the global step.

    `Trainer.train` raises `TrialPruned` when the trial is pruned.

    Args:
        trial: Receiver of the reports: a `Trial` or `Callbacks`.

    Example:
        >>> trainer = Trainer(model, args, callbacks=[TrialCallback(trial)])  # doctest: +SKIP
    """

    def __init__(self, trial: EvaluationReceiver) -> None:
        self._trial = trial

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Report the metrics that are numbers; users may add text and lists."""
        numbers = {k: v for k, v in (metrics or {}).items() if isinstance(v, int | float)}
        if numbers:
            self._trial.report(state.global_step, numbers)
