"""What is printed when a study has ended."""

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
from trialbus_services.views.terminal import duration, plain, shown

_MOST = 5
_REASONS: dict[events.FinishReason, tuple[str, str]] = {
    "exhausted": ("all trials done", "green"),
    "timeout": ("the time is over (study.timeout_s)", "yellow"),
    "stopped": ("stopped", "yellow"),
    "converged": ("converged", "green"),
    "failed": ("failed", "red"),
}


def print_summary(
    console: Console,
    finished: events.StudyFinished,
    *,
    metrics: Sequence[str],
    directions: Sequence[Direction] = (),
    wall_s: float,
    report: Path | None,
) -> None:
    """Print the best value and params, the counts by state, the wall time and where the report is.

    A study that did not reach its end is followed by the reason and by what to do next. In a
    terminal there is a frame; the report's path is outside of it and never broken.

    Args:
        console: Where to.
        finished: The event that ended the study.
        metrics: Names of its objectives.
        directions: Their directions, in the same order; left out, they are not shown.
        wall_s: Seconds since it was submitted here.
        report: The report's page, if there is one.

    Example:
        >>> end = events.StudyFinished(study="digits", submission="1", reason="stopped")
        >>> print_summary(Console(), end, metrics=[], wall_s=9.0, report=None)  # doctest: +SKIP
    """
    reason, color = _REASONS[finished.reason]
    # Names and errors are users' text, never markup.
    title = Text.assemble(
        (plain(finished.study), "bold not dim"), ", ", (reason, f"{color} not dim")
    )
    table = _facts(finished, metrics, directions, wall_s)
    console.print()
    if console.is_terminal:
        frame = Panel.fit(
            table, title=title, title_align="left", box=box.ROUNDED, border_style="dim"
        )
        console.print(frame, highlight=False)
    else:
        console.print(title, soft_wrap=True)
        console.print(table, highlight=False, soft_wrap=True)
    if report is not None:
        path = Text(str(report), style=f"link {report.as_uri()}" if report.is_absolute() else "")
        console.print(Text.assemble(("report  ", "dim"), path), highlight=False, soft_wrap=True)
    _print_advice(console, finished)


def _facts(
    finished: events.StudyFinished,
    metrics: Sequence[str],
    directions: Sequence[Direction],
    wall_s: float,
) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    front = len(finished.best_trials) > 1
    for best in finished.best_trials[:_MOST]:
        values = _values(best, metrics, directions)
        table.add_row("best", values.append(f" in trial {best.number}"))
        if front:
            table.add_row("", Text(shown(best.params), style="dim"))
        else:
            table.add_row("params", _params(best))
    if len(finished.best_trials) > _MOST:
        table.add_row("", f"and {len(finished.best_trials) - _MOST} more on the Pareto front")
    counts = finished.counts
    ended = f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
    table.add_row("trials", ended)
    table.add_row("wall time", duration(wall_s))
    return table


def _values(
    best: events.BestTrial, metrics: Sequence[str], directions: Sequence[Direction]
) -> Text:
    named = zip_longest(best.values, metrics, directions)
    return Text(", ").join(
        Text.assemble(
            (f"{plain(metric or 'value')} {value:.6g}", "bold green"),
            (f" ({direction}d)" if direction else "", "dim"),
        )
        for value, metric, direction in islice(named, len(best.values))
    )


def _params(best: events.BestTrial) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in best.params.items():
        text = f"{value:.6g}" if isinstance(value, float) else plain(str(value))
        table.add_row(Text(plain(name)), Text(text))
    return table


def _print_advice(console: Console, finished: events.StudyFinished) -> None:
    error = finished.error
    if error is None and not finished.best_trials:
        error = "no trial was completed; the logs of the trials say why"
    if error is not None:
        style = "red" if finished.reason == "failed" or not finished.best_trials else "yellow"
        label = "error: " if style == "red" else "reason: "
        console.print(Text.assemble((label, style), plain(error)), highlight=False, soft_wrap=True)
    if finished.reason == "failed":
        advice = "mend the cause and run the same study command again: what is done stays done"
    elif finished.reason in ("stopped", "timeout"):
        advice = "the same study command goes on with the trials left"
    else:
        return
    console.print(Text.assemble(("next: ", "dim"), advice), highlight=False, soft_wrap=True)
