"""Hugging Face Transformers: reports every evaluation. Needs `trialbus[transformers]`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trialbus.callbacks.evaluation import Reported


class TrialCallback(TrainerCallback):
    """Reports the numbers of every evaluation, at the optimizer's global step.

    A prune leaves `Trainer.train` as `TrialPruned`.

    Args:
        trial: Whom to report to: the `Trial`, or `Callbacks`.

    Example:
        >>> trainer = Trainer(model, args, callbacks=[TrialCallback(trial)])  # doctest: +SKIP
    """

    def __init__(self, trial: Reported) -> None:
        self._trial = trial

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Report what is a number; some metrics of users are texts or lists."""
        numbers = {k: v for k, v in (metrics or {}).items() if isinstance(v, int | float)}
        self._trial.report(state.global_step, numbers)
