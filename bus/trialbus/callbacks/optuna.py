"""The callback that reports evaluations to the trial, and so to the study's pruner."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trialbus.callbacks.evaluation import EvaluationCallback
from trialbus.messages.events import EvaluationComplete
from trialbus.trainer.trial import Trial


@dataclass(kw_only=True)
class OptunaCallbackConfig:
    """How evaluations are reported; usable as a structured config of Hydra.

    Raises:
        ValueError: A value cannot be used; names the key.
    """

    enabled: bool = True
    """Whether evaluations are reported."""
    metric_name: str | None = None
    """Metric that is reported; None for all metrics as they are."""
    report_interval: int = 1
    """Interval between reports in evaluations, from the first on; 1 reports every evaluation."""
    use_best_value: bool = False
    """Whether the best value of `metric_name` so far is reported in place of the newest."""
    direction: str = "maximize"
    """Which values are better: `maximize` or `minimize`."""

    def __post_init__(self) -> None:
        if self.report_interval < 1:
            raise ValueError(f"report_interval {self.report_interval} is below 1")
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(
                f"direction {self.direction!r} is unknown (expected maximize or minimize)"
            )
        if self.use_best_value and self.metric_name is None:
            raise ValueError("use_best_value: needs metric_name, to know whose best value")


class OptunaCallback(EvaluationCallback):
    """Reports evaluations to a trial; raises `TrialPruned` when the study's pruner says so.

    Args:
        trial: Whom to report to.
        config: What, and how often.

    Raises:
        KeyError: An evaluation lacks the metric; the message has those it holds.

    Example:
        >>> config = OptunaCallbackConfig(metric_name="mean_reward", use_best_value=True)
        >>> callbacks = Callbacks([OptunaCallback(trial, config)], trial)  # doctest: +SKIP
    """

    name = "optuna"
    essential = True  # a study without reports is of no use

    def __init__(self, trial: Trial, config: OptunaCallbackConfig | None = None) -> None:
        self._trial = trial
        self._config = config or OptunaCallbackConfig()
        self.enabled = self._config.enabled
        self._evaluations = 0
        self._best: float | None = None

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        """Report it, if it is its turn."""
        reported = self._chosen(event)
        due = self._evaluations % self._config.report_interval == 0
        self._evaluations += 1
        if due:
            self._trial.report(event.step, reported)

    def _chosen(self, event: EvaluationComplete) -> dict[str, float]:
        name = self._config.metric_name
        if name is None:
            return event.metrics
        if name not in event.metrics:
            raise KeyError(
                f"metric_name {name!r} is not in the evaluation at step {event.step}, "
                f"which has {sorted(event.metrics)}"
            )
        value = event.metrics[name]
        better = max if self._config.direction == "maximize" else min
        if self._best is None or math.isnan(self._best):
            self._best = value
        elif not math.isnan(value):
            self._best = better(self._best, value)
        return {name: self._best if self._config.use_best_value else value}
