"""Notice about a finished study, and the protocol of notifiers."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from trialbus.messages import events
from trialbus_services.views.formats import (
    FINISH_REASONS,
    format_counts,
    format_metrics,
    format_params,
)


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Notice about a finished study and the report of the study."""

    study: str
    """Name of the study."""

    submission: str
    """Id of the submission that ended; with the study it tells a notice seen twice."""

    reason: events.FinishReason | None = None
    """Reason of `study_finished`; None where the log does not hold that any more."""

    error: str | None = None
    """Error of the study, or details of the reason."""

    metrics: list[str] = []
    """Names of the objectives."""

    best_trials: list[events.BestTrial] = []
    """The best trial, or the Pareto front."""

    counts: events.TrialCounts = events.TrialCounts()
    """Finished trials by state."""

    host: str = msgspec.field(default_factory=socket.gethostname)
    """The machine that the paths are on."""

    paths: list[str] = []
    """Files of the report, the page first; empty where there is none."""

    report_error: str | None = None
    """Reason why there is no report; None with a report."""

    @property
    def title(self) -> str:
        """Short line with the name of the study and the reason of the end."""
        return f"{self.study}: {FINISH_REASONS[self.reason] if self.reason else 'ended'}"

    @property
    def text(self) -> str:
        """A few lines for people, without the title."""
        lines = [f"best {_format_best(best, self.metrics)}" for best in self.best_trials[:1]]
        if len(self.best_trials) > 1:
            lines.append(f"and {len(self.best_trials) - 1} more on the Pareto front")
        if self.reason is not None:
            lines.append(format_counts(self.counts))
        if self.error:
            lines.append(self.error)
        if self.paths:
            lines.append(f"report {self.host}:{self.paths[0]}")
        else:
            lines.append(f"no report: {self.report_error or 'no reason given'}")
        return "\n".join(lines)


class Notifier(Protocol):
    """Protocol of notifiers: callables that take a notice, and raise to be called again."""

    def __call__(self, notice: Notice, /) -> object:
        """Hand the notice on, within a bounded time."""
        ...


def create_notice(ready: events.ReportReady, before: Iterable[events.Event]) -> Notice:
    """Create the notice about a report.

    Args:
        ready: Event of the report.
        before: `study_started` and `study_finished` of the study, as far as the log holds them.
    """
    metrics: Sequence[str] = []
    end: events.StudyFinished | None = None
    for event in before:
        match event:
            case events.StudyStarted():
                metrics = event.metrics
            case events.StudyFinished() if event.submission == ready.submission:
                end = event
            case _:
                pass
    notice = Notice(
        study=ready.study,
        submission=ready.submission,
        metrics=list(metrics),
        paths=ready.paths,
        report_error=ready.error,
    )
    if end is None:
        return notice
    return msgspec.structs.replace(
        notice, reason=end.reason, error=end.error, best_trials=end.best_trials, counts=end.counts
    )


def _format_best(best: events.BestTrial, metrics: Sequence[str]) -> str:
    values = ", ".join(format_metrics(best.values, metrics))
    return f"{values} in trial {best.number} ({format_params(best.params)})"
