"""Summary of a finished study in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, zip_longest
from pathlib import Path

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trialbus.messages import events
from trialbus.study.spec import Direction
from trialbus_services.views.formats import (
    FINISH_REASONS,
    format_clock,
    format_counts,
    format_metrics,
    format_params,
    format_value,
    strip_control_characters,
)

_MAX_BEST = 5
_COLORS: dict[events.FinishReason, str] = {
    "exhausted": "green",
    "timeout": "yellow",
    "stopped": "yellow",
    "converged": "green",
    "failed": "red",
}


def print_summary(
    console: Console,
    finished: events.StudyFinished,
    *,
    metrics: Sequence[str],
    directions: Sequence[Direction] = (),
    wall_s: float,
) -> None:
    """Print the best value and params, the counts by state and the wall time of a study.

    For a study that ended early the reason and advice follow. In a terminal the summary has a
    frame.

    Args:
        console: Console to print to.
        finished: The event that ended the study.
        metrics: Names of the objectives.
        directions: Directions of the objectives; empty shows none.
        wall_s: Seconds since the submission.

    Example:
        >>> end = events.StudyFinished(study="digits", submission="1", reason="stopped")
        >>> print_summary(Console(), end, metrics=[], wall_s=9.0)  # doctest: +SKIP
    """
    reason, color = FINISH_REASONS[finished.reason], _COLORS[finished.reason]
    if color == "green" and not finished.best_trials:
        color = "red"
        reason += ", none feasible" if finished.counts.complete else ", none complete"
    # Names and errors are users' text, never markup.
    title = Text.assemble(
        (strip_control_characters(finished.study), "bold not dim"),
        ", ",
        (reason, f"{color} not dim"),
    )
    table = _build_table(finished, metrics, directions, wall_s)
    console.print()
    if console.is_terminal:
        frame = Panel.fit(
            table, title=title, title_align="left", box=box.ROUNDED, border_style="dim"
        )
        console.print(frame, highlight=False)
    else:
        console.print(title, soft_wrap=True)
        console.print(table, highlight=False, soft_wrap=True)
    _print_advice(console, finished)


def print_report(console: Console, page: Path) -> None:
    """Print the path of a report's page, which is never broken into lines."""
    path = Text(str(page), style=f"link {page.as_uri()}" if page.is_absolute() else "")
    console.print(Text.assemble(("report  ", "dim"), path), highlight=False, soft_wrap=True)


def _build_table(
    finished: events.StudyFinished,
    metrics: Sequence[str],
    directions: Sequence[Direction],
    wall_s: float,
) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    is_front = len(finished.best_trials) > 1
    for best in finished.best_trials[:_MAX_BEST]:
        values = _format_values(best, metrics, directions)
        table.add_row("best", values.append(f" in trial {best.number}"))
        if is_front:
            table.add_row("", Text(format_params(best.params), style="dim"))
        else:
            table.add_row("params", _build_params_table(best))
    if len(finished.best_trials) > _MAX_BEST:
        table.add_row("", f"and {len(finished.best_trials) - _MAX_BEST} more on the Pareto front")
    table.add_row("trials", format_counts(finished.counts))
    table.add_row("wall time", format_clock(wall_s))
    return table


def _format_values(
    best: events.BestTrial, metrics: Sequence[str], directions: Sequence[Direction]
) -> Text:
    values = zip_longest(format_metrics(best.values, metrics), directions)
    return Text(", ").join(
        Text.assemble(
            (text or "", "bold green"),
            (f" ({direction}d)" if direction else "", "dim"),
        )
        for text, direction in islice(values, len(best.values))
    )


def _build_params_table(best: events.BestTrial) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in best.params.items():
        text = strip_control_characters(format_value(value))
        table.add_row(Text(strip_control_characters(name)), Text(text))
    return table


def _print_advice(console: Console, finished: events.StudyFinished) -> None:
    error = finished.error
    if error is None and not finished.best_trials:
        error = "no trial was completed; the logs of the trials say why"
    if error is not None:
        style = "red" if finished.reason == "failed" or not finished.best_trials else "yellow"
        label = "error: " if style == "red" else "reason: "
        console.print(
            Text.assemble((label, style), strip_control_characters(error)),
            highlight=False,
            soft_wrap=True,
        )
    if finished.reason == "failed":
        advice = "fix the cause and run the same study command again; finished trials are kept"
    elif finished.reason in ("stopped", "timeout"):
        advice = "the same study command continues with the remaining trials"
    else:
        return
    console.print(Text.assemble(("next: ", "dim"), advice), highlight=False, soft_wrap=True)
