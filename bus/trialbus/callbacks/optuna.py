"""Optuna: the callback that reports evaluations to the trial, and so to the study's pruner."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trialbus.callbacks.evaluation import EvaluationCallback
from trialbus.messages.events import EvaluationComplete
from trialbus.trainer.trial import Trial


@dataclass(kw_only=True)
class OptunaCallbackConfig:
    """How evaluations are reported to the trial; usable as a structured config of Hydra.

    Raises:
        ValueError: A value cannot be used; names the key.
    """

    enabled: bool = True
    """Whether evaluations are reported."""

    metric_name: str | None = None
    """Name of the only metric to report; None reports all metrics."""

    report_interval: int = 1
    """Reports every n-th evaluation, from the first evaluation on; 1 reports all."""

    use_best_value: bool = False
    """Whether the best value of `metric_name` so far is reported in place of the newest value."""

    direction: str = "maximize"
    """Which values are better for `use_best_value`: `maximize` or `minimize`."""

    def __post_init__(self) -> None:
        if self.report_interval < 1:
            raise ValueError(
                f"report_interval {self.report_interval} is below 1 (expected 1 or more)"
            )
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(
                f"direction {self.direction!r} is unknown (expected maximize or minimize)"
            )
        if self.use_best_value and self.metric_name is None:
            raise ValueError("use_best_value: needs metric_name, the metric of the best value")


class OptunaCallback(EvaluationCallback):
    """A callback that reports evaluations to a trial and raises `TrialPruned` on a prune.

    Args:
        trial: Trial to report to.
        config: Metric and interval of the reports; None means the defaults.

    Raises:
        KeyError: An evaluation lacks the metric; the message lists the metrics of the evaluation.

    Example:
        >>> config = OptunaCallbackConfig(metric_name="mean_reward", use_best_value=True)
        >>> callbacks = Callbacks([OptunaCallback(trial, config)], trial)  # doctest: +SKIP
    """

    name = "optuna"
    essential = True  # a study without reports is useless

    def __init__(self, trial: Trial, config: OptunaCallbackConfig | None = None) -> None:
        self._trial = trial
        self._config = config or OptunaCallbackConfig()
        self.enabled = self._config.enabled
        self._n_evaluations = 0
        self._best: float | None = None

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        """Report an evaluation, unless `report_interval` skips the evaluation."""
        metrics = self._select_metrics(event)
        is_due = self._n_evaluations % self._config.report_interval == 0
        self._n_evaluations += 1
        if is_due:
            self._trial.report(event.step, metrics)

    def _select_metrics(self, event: EvaluationComplete) -> dict[str, float]:
        name = self._config.metric_name
        if name is None:
            return event.metrics
        if name not in event.metrics:
            raise KeyError(
                f"metric_name {name!r} is not in the evaluation at step {event.step}, "
                f"which has {sorted(event.metrics)}"
            )
        value = event.metrics[name]
        choose_better = max if self._config.direction == "maximize" else min
        if self._best is None or math.isnan(self._best):
            self._best = value
        elif not math.isnan(value):
            self._best = choose_better(self._best, value)
        return {name: self._best if self._config.use_best_value else value}
