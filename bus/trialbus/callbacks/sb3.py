"""Stable-Baselines3: reports every evaluation of an `EvalCallback`. Needs `trialbus[sb3]`."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from trialbus.callbacks.evaluation import Reported


class TrialCallback(BaseCallback):
    """Reports `mean_reward` at the number of time steps, after every evaluation.

    A prune leaves `learn` as `TrialPruned`.

    Args:
        trial: Whom to report to: the `Trial`, or `Callbacks`.

    Example:
        >>> evaluate = EvalCallback(  # doctest: +SKIP
        ...     env, eval_freq=500, callback_after_eval=TrialCallback(trial)
        ... )
        >>> model.learn(10_000, callback=evaluate)  # doctest: +SKIP
    """

    def __init__(self, trial: Reported) -> None:
        super().__init__()
        self._trial = trial

    def _on_step(self) -> bool:
        if not isinstance(self.parent, EvalCallback):
            raise TypeError("give it to EvalCallback(callback_after_eval=...), not to learn()")
        self._trial.report(self.num_timesteps, {"mean_reward": self.parent.last_mean_reward})
        return True
