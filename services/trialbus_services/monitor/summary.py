"""What is printed when a study has ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trialbus import events

_MOST = 5
_REASONS = {
    "exhausted": "all trials done",
    "timeout": "the time is over (study.timeout_s)",
    "stopped": "stopped",
    "converged": "converged",
    "failed": "failed",
}


def print_summary(
    console: Console,
    finished: events.StudyFinished,
    *,
    metrics: Sequence[str],
    wall_s: float,
    report: Path | None,
) -> None:
    """Print the best value and params, the counts by state, the wall time and where the report is.

    Args:
        console: Where to.
        finished: The event that ended the study.
        metrics: Names of its objectives.
        wall_s: Seconds since it was submitted here.
        report: The report's page, if there is one.
    """
    counts = finished.counts
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    # Names and errors are users' text, never markup.
    def row(label: str, *parts: str | tuple[str, str]) -> None:
        table.add_row(label, Text.assemble(*parts))

    row("study", (finished.study, "bold"), f", {_REASONS[finished.reason]}")
    for best in finished.best_trials[:_MOST]:
        pairs = zip(metrics, best.values, strict=False)
        values = ", ".join(f"{name} {value:.6g}" for name, value in pairs)
        row("best", (values, "bold green"), f" in trial {best.number}")
        for name, value in best.params.items():
            row("", f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}")
    if len(finished.best_trials) > _MOST:
        row("", f"and {len(finished.best_trials) - _MOST} more on the Pareto front")
    ended = f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
    row("trials", ended)
    row("wall time", str(timedelta(seconds=round(wall_s))))
    if report is not None:
        row("report", str(report))
    console.print()
    console.print(table, highlight=False, soft_wrap=True)
    error = finished.error
    if error is None and not finished.best_trials:
        error = "no trial was completed; the logs of the trials say why"
    if error is not None:
        console.print(Text.assemble(("error: ", "red"), error), highlight=False, soft_wrap=True)
