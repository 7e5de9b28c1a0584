"""Notice: what a notifier is told about a study that ended."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Protocol

import msgspec

from trialbus.messages import events
from trialbus_services.views.terminal import shown

_ENDS: dict[events.FinishReason | None, str] = {
    "exhausted": "all trials done",
    "timeout": "its time is over",
    "stopped": "stopped",
    "converged": "converged",
    "failed": "failed",
    None: "ended",
}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A study that ended, and where its report is."""

    study: str
    """Name of the study."""

    submission: str
    """Id of the submission that ended; with the study it tells a notice seen twice."""

    reason: events.FinishReason | None = None
    """Reason of `study_finished`; None where the log does not hold that any more."""

    error: str | None = None
    """What went wrong, or more about the reason."""

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
    """Why there is no report."""

    @property
    def title(self) -> str:
        """One short line: the study and how it ended."""
        return f"{self.study}: {_ENDS[self.reason]}"

    @property
    def text(self) -> str:
        """A few lines for people, without the title."""
        lines = [f"best {_values(best, self.metrics)}" for best in self.best_trials[:1]]
        if len(self.best_trials) > 1:
            lines.append(f"and {len(self.best_trials) - 1} more on the Pareto front")
        if self.reason is not None:
            counts = self.counts
            lines.append(
                f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
            )
        if self.error:
            lines.append(self.error)
        if self.paths:
            lines.append(f"report {self.host}:{self.paths[0]}")
        else:
            lines.append(f"no report: {self.report_error or 'no reason given'}")
        return "\n".join(lines)


class Notifier(Protocol):
    """Anything that can be called with a notice. It raises to be called again later."""

    def __call__(self, notice: Notice, /) -> object:
        """Hand the notice on, within a bounded time."""
        ...


def notice_of(ready: events.ReportReady, before: Iterable[events.Event]) -> Notice:
    """Return the notice about a report that is ready.

    Args:
        ready: The end of the story.
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
    told = Notice(
        study=ready.study,
        submission=ready.submission,
        metrics=list(metrics),
        paths=ready.paths,
        report_error=ready.error,
    )
    if end is None:
        return told
    return msgspec.structs.replace(
        told, reason=end.reason, error=end.error, best_trials=end.best_trials, counts=end.counts
    )


def _values(best: events.BestTrial, metrics: Sequence[str]) -> str:
    named = zip_longest(best.values, metrics[: len(best.values)], fillvalue="value")
    values = ", ".join(f"{metric} {value:.6g}" for value, metric in named)
    return f"{values} in trial {best.number} ({shown(best.params)})"
