"""LightGBM: reports the metrics of every boosting round; does not import LightGBM."""

from __future__ import annotations

from typing import Any

from trialbus.callbacks.evaluation import EvaluationReceiver


class TrialCallback:
    """A callback of LightGBM that reports the metrics of a boosting round as `<data set>/<metric>`.

    `lightgbm.train`, or `fit`, raises `TrialPruned` when the trial is pruned.

    Args:
        trial: Receiver of the reports: a `Trial` or `Callbacks`.

    Example:
        >>> booster = lightgbm.train(  # doctest: +SKIP
        ...     params, data, valid_sets=[held_out], callbacks=[TrialCallback(trial)]
        ... )
    """

    order = 25  # before early stopping, which ends the training by an exception in round 30

    def __init__(self, trial: EvaluationReceiver) -> None:
        self._trial = trial

    def __call__(self, env: Any) -> None:
        """Report the metrics in a `lightgbm.callback.CallbackEnv`."""
        results = env.evaluation_result_list
        if results:
            metrics = {f"{data_set}/{metric}": value for data_set, metric, value, *_ in results}
            self._trial.report(env.iteration, metrics)
