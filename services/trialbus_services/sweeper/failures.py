"""Failures of a sweep: too many failed trials, or a metric that no trial reports."""

from __future__ import annotations

from trialbus.errors import TrialbusError
from trialbus.messages import events
from trialbus.study.validation import find_nearest


class TooManyFailuresError(TrialbusError):
    """More trials of a sweep have failed than `hydra.sweeper.max_failure_rate` allows.

    Args:
        failed: Number of failed trials of this call.
        ended: Number of trials of this call that have ended.
        rate: The allowed share.
        last: The last trial that failed.
    """

    def __init__(self, failed: int, ended: int, rate: float, last: events.TrialClosed) -> None:
        super().__init__(
            f"{failed} of {ended} trials failed (hydra.sweeper.max_failure_rate={rate:g}); "
            f"trial {last.trial} failed last, as {last.cause}:\n{last.error or ''}".rstrip()
        )


class FailureWatch:
    """Counts the trials of a sweep that ended, and those that failed.

    Args:
        rate: Share of failed trials above which the sweep ends.
        least: Number of trials that count at least as ended: those of a batch, for a sweeper that
            runs batches.
    """

    def __init__(self, rate: float, least: int) -> None:
        self._rate = rate
        self._least = least
        self._ended = 0
        self._failed = 0

    def follow(self, event: events.AnyEvent | None) -> None:
        """Count the end of a trial.

        Raises:
            TooManyFailuresError: Too many trials have failed.
        """
        if not isinstance(event, events.TrialClosed):
            return
        self._ended += 1
        if event.state != "failed":
            return
        self._failed += 1
        if self._failed / max(self._ended, self._least) > self._rate:
            raise TooManyFailuresError(self._failed, self._ended, self._rate, event)


class MetricWatch:
    """Checks that the trials of a sweep report the metric that `hydra.sweeper.pruner` judges.

    A job that returns its objective value is complete without a report, so that a misspelt metric
    would leave every trial unpruned.

    Args:
        metric: The metric; None where nothing is pruned.
    """

    def __init__(self, metric: str | None) -> None:
        self._metric = metric
        self._is_known = metric is None
        self._reported: dict[int, set[str]] = {}

    def follow(self, event: events.AnyEvent | None) -> None:
        """Note what a trial reports, until a trial reports the metric.

        Raises:
            TrialbusError: A trial is complete that reported other metrics only.
        """
        if self._is_known or self._metric is None:
            return
        if isinstance(event, events.EvaluationComplete):
            self._is_known = self._metric in event.metrics
            self._reported.setdefault(event.trial, set()).update(event.metrics)
        elif isinstance(event, events.TrialClosed) and event.state == "complete":
            names = self._reported.pop(event.trial, None)
            if names:
                near = find_nearest(self._metric, names)
                hint = f"; did you mean {near!r}?" if near else ""
                raise TrialbusError(
                    f"hydra.sweeper.metric {self._metric!r}, which hydra.sweeper.pruner judges, "
                    f"was never reported; trial {event.trial} reported: {', '.join(sorted(names))}"
                    f"{hint}"
                )
