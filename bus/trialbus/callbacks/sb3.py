"""Stable-Baselines3: reports every evaluation of an `EvalCallback`. Needs `trialbus[sb3]`."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from trialbus.callbacks.evaluation import EvaluationReceiver


class TrialCallback(BaseCallback):
    """A callback of Stable-Baselines3 that reports `mean_reward` after every evaluation.

    The step is the number of time steps. `learn` raises `TrialPruned` when the trial is pruned.

    Args:
        trial: Receiver of the reports: a `Trial` or `Callbacks`.

    Example:
        >>> evaluate = EvalCallback(  # doctest: +SKIP
        ...     env, eval_freq=500, callback_after_eval=TrialCallback(trial)
        ... )
        >>> model.learn(10_000, callback=evaluate)  # doctest: +SKIP
    """

    def __init__(self, trial: EvaluationReceiver) -> None:
        super().__init__()
        self._trial = trial

    def _on_step(self) -> bool:
        if not isinstance(self.parent, EvalCallback):
            raise TypeError(
                "give the TrialCallback to EvalCallback(callback_after_eval=...), not to learn()"
            )
        self._trial.report(self.num_timesteps, {"mean_reward": self.parent.last_mean_reward})
        return True
