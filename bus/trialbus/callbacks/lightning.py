"""PyTorch Lightning: reports at the end of every validation. Needs `trialbus[lightning]`."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from trialbus.callbacks.evaluation import Reported


class TrialCallback(Callback):
    """Reports what the module logged, at the end of every validation but the sanity check.

    A prune leaves `Trainer.fit` as `TrialPruned`. With several devices start the processes with
    `torchrun` and call `torch.distributed.init_process_group()` before `trialbus.attach()`.

    Args:
        trial: Whom to report to: the `Trial`, or `Callbacks`.
        step: Count in `epoch`s or in the optimizer's `global_step`s, for those that validate
            several times in an epoch.

    Example:
        >>> trainer = Trainer(callbacks=[TrialCallback(trial)])  # doctest: +SKIP
    """

    def __init__(self, trial: Reported, *, step: Literal["epoch", "global_step"] = "epoch") -> None:
        self._trial = trial
        self._step: Literal["epoch", "global_step"] = step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, unless Lightning only tries out whether validation works."""
        if trainer.sanity_checking:
            return
        step = trainer.current_epoch if self._step == "epoch" else trainer.global_step
        metrics: dict[str, Any] = dict(trainer.callback_metrics)
        self._trial.report(step, metrics)
