"""PyTorch Lightning: reports at the end of every validation. Needs `trialbus[lightning]`."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from trialbus.callbacks.evaluation import EvaluationReceiver
from trialbus.trainer.attachment import attach


class TrialCallback(Callback):
    """A callback of Lightning that reports the logged metrics at the end of every validation.

    The sanity check is not reported. `Trainer.fit` raises `TrialPruned` when the trial is pruned.
    With several devices in a worker's trial, the ranks that Lightning starts (`strategy="ddp"`)
    attach as the script does. Otherwise start the processes with `torchrun` and call
    `torch.distributed.init_process_group()` before `trialbus.attach()`.

    Args:
        trial: Receiver of the reports: a `Trial` or `Callbacks`; None for the trial of this
            process, as `attach` returns it, so that a config alone can add the callback.
        step: Unit of the reported step: `epoch`, or `global_step` for several validations in an
            epoch.

    Example:
        >>> trainer = Trainer(callbacks=[TrialCallback(trial)])  # doctest: +SKIP
    """

    def __init__(
        self,
        trial: EvaluationReceiver | None = None,
        *,
        step: Literal["epoch", "global_step"] = "epoch",
    ) -> None:
        self._trial = attach() if trial is None else trial
        self._step: Literal["epoch", "global_step"] = step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the logged metrics, except during the sanity check."""
        if trainer.sanity_checking:
            return
        step = trainer.current_epoch if self._step == "epoch" else trainer.global_step
        metrics: dict[str, Any] = dict(trainer.callback_metrics)
        if metrics:
            self._trial.report(step, metrics)
