"""LightGBM: reports the metrics of every boosting round. Imports nothing but trialbus."""

from __future__ import annotations

from typing import Any

from trialbus.callbacks.evaluation import Reported


class TrialCallback:
    """Reports what was evaluated in a boosting round as `<data set>/<metric>`.

    A prune leaves `lightgbm.train`, or `fit`, as `TrialPruned`.

    Args:
        trial: Whom to report to: the `Trial`, or `Callbacks`.

    Example:
        >>> booster = lightgbm.train(  # doctest: +SKIP
        ...     params, data, valid_sets=[held_out], callbacks=[TrialCallback(trial)]
        ... )
    """

    order = 25  # before early stopping, which ends the training by an exception in round 30

    def __init__(self, trial: Reported) -> None:
        self._trial = trial

    def __call__(self, env: Any) -> None:
        """Take a `lightgbm.callback.CallbackEnv`."""
        if env.evaluation_result_list:
            metrics = {f"{found[0]}/{found[1]}": found[2] for found in env.evaluation_result_list}
            self._trial.report(env.iteration, metrics)
