"""Live view of a running study in a terminal."""

from __future__ import annotations

import importlib.util
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trialbus_services.views.formats import (
    LIVE_DIGITS,
    PARAM_DIGITS,
    format_clock,
    format_done,
    format_params,
    format_value,
    strip_control_characters,
)
from trialbus_services.views.notes import Note, NoteKind
from trialbus_services.views.study_view import Best, RunningTrial, StudyView

_FRAME_S = 0.125
_PLAIN_EVERY_S = 10.0
_PACE_S = 5.0
_BARS = "▁▂▃▄▅▆▇█"
_SPARK = 16
_MOST_ROWS = 40
_STYLES: dict[NoteKind, str] = {
    "complete": "green",
    "pruned": "yellow",
    "failed": "red",
    "interrupted": "magenta",
    "killed": "magenta",
    "lost": "magenta",
    "memory": "magenta",
    "missing": "yellow",
    "resumed": "dim",
    "silent": "magenta",
    "timed out": "magenta",
}


class TerminalView:
    """Live display of a `StudyView` in a terminal or a notebook.

    In a terminal, and in a notebook with `ipywidgets`, a live area shows progress and the running
    trials, and notes on ended trials scroll by above. The area is drawn at most eight times a
    second and removed at the end of the block. Elsewhere plain lines are printed: a line for each
    ended trial, and a line about the progress for every tenth of the study, or after ten seconds
    with events.

    Args:
        view: View to draw; this object takes the notes of the view.
        console: Console to draw on.
        clock: Monotonic clock in seconds.

    Example:
        >>> with TerminalView(view, console=Console()) as terminal:  # doctest: +SKIP
        ...     for event in inbox:
        ...         view.apply(event)
        ...         terminal.update()
    """

    def __init__(
        self, view: StudyView, *, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._view = view
        self._console = console
        self._clock = clock
        self._drawn_at = -math.inf
        self._frame_s = _FRAME_S
        # Tenths of the study and number of events at the last progress line.
        self._printed: tuple[int, int] = (-1, -1)
        self._live: Live | None = None
        self._event_counts: deque[tuple[float, int]] = deque()  # by time

    def __enter__(self) -> TerminalView:
        if self._console.is_terminal or _is_notebook(self._console):
            self._live = Live(
                self._render(self._clock()),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._print_notes()
        if self._live:
            self._live.stop()
            self._live = None

    def update(self) -> None:
        """Draw the changes of the view; cheap enough to call for every event."""
        now = self._clock()
        if self._live is None:
            self._print_notes()
            self._print_progress(now)
        elif now - self._drawn_at >= self._frame_s:
            self._print_notes()
            self._live.update(self._render(now), refresh=True)
            self._drawn_at = self._clock()
            # Drawing takes at most a tenth of the time, to leave the rest for events.
            self._frame_s = max(_FRAME_S, 9 * (self._drawn_at - now))

    def _print_notes(self) -> None:
        notes = self._view.take_notes()
        if notes:
            lines = Text("\n").join(_format_note(note) for note in notes)
            self._console.print(lines, soft_wrap=True)

    def _print_progress(self, now: float) -> None:
        view = self._view
        tenths = view.n_done // max(2, math.ceil((view.n_trials or 0) / 10))
        is_due = now - self._drawn_at >= _PLAIN_EVERY_S and view.n_events != self._printed[1]
        if view.state == "running" and (is_due or tenths != self._printed[0]):
            self._drawn_at, self._printed = now, (tenths, view.n_events)
            self._console.print(
                _format_progress(view), highlight=False, markup=False, soft_wrap=True
            )

    def _render(self, now: float) -> RenderableType:
        view = self._view
        rows = max(1, min(_MOST_ROWS, self._console.height - 8))
        trials = sorted(view.running.values(), key=lambda trial: trial.number)
        pace = self._measure_pace(now)
        counts = _format_live_counts(view)
        counts.append(f"   {pace:.0f} events/s" if pace >= 10 else f"   {pace:.1f} events/s", "dim")
        parts: list[RenderableType] = [
            Text(),
            _build_progress_bar(view),
            counts,
            _format_best(view),
        ]
        if trials:
            width = self._console.width
            bars = 0 if self._console.options.ascii_only else _SPARK if width >= 100 else 10
            wide = width >= 120
            parts += [Text(), _build_table(trials[:rows], view.metric, bars=bars, wide=wide)]
        if len(trials) > rows:
            parts.append(Text(f"and {len(trials) - rows} more", style="dim"))
        return Group(*parts)

    def _measure_pace(self, now: float) -> float:
        """Return events per second over the last few seconds."""
        n_events = self._view.n_events
        self._event_counts.append((now, n_events))
        while len(self._event_counts) > 2 and now - self._event_counts[1][0] >= _PACE_S:
            self._event_counts.popleft()
        start, n_before = self._event_counts[0]
        return (n_events - n_before) / max(now - start, _FRAME_S)


def _is_notebook(console: Console) -> bool:
    """Tell whether a console is a cell's output, in which `Live` draws by a widget."""
    return console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None


def _format_note(note: Note) -> Text:
    """Format a note as text, with the word of the note's kind in colour."""
    text = Text(strip_control_characters(note.text))
    start = max(0, text.plain.find(note.kind))
    text.stylize(_STYLES[note.kind], start, start + len(note.kind))
    return text


def _build_progress_bar(view: StudyView) -> RenderableType:
    line = Table.grid(padding=(0, 2, 0, 0), expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis", max_width=32)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    total = view.n_trials or 1
    left = "" if view.left_s is None else f", about {format_clock(view.left_s)} left"
    bar = ProgressBar(
        total=total,
        completed=min(view.n_done, total),
        style="bright_black",
        complete_style="cyan",
        finished_style="green",
    )
    done = f"{format_done(view.n_done, view.n_trials)} trials"
    times = (f"  {format_clock(view.elapsed_s)}{left}", "dim")
    line.add_row(
        Text(strip_control_characters(view.study), style="bold"), bar, Text.assemble(done, times)
    )
    return line


def _format_live_counts(view: StudyView) -> Text:
    if view.state == "submitted" and not view.n_done and not view.running:
        return Text("waiting for the optimizer", style="dim")
    text = Text(_format_open_trials(view), no_wrap=True, overflow="ellipsis")
    states: tuple[NoteKind, ...] = ("complete", "pruned", "failed")
    for state in states:
        count = view.counts[state]
        text.append("   ").append(f"{count} {state}", style=_STYLES[state] if count else "dim")
    if view.n_lost:
        text.append("   ").append(f"{view.n_lost} lost", style=_STYLES["lost"])
        text.append(f", {view.n_retried} retried", style="dim")
    return text


def _format_best(view: StudyView) -> Text:
    best = view.best
    if best is None:
        return Text("no value yet", style="dim")
    return Text.assemble(
        "best ",
        (format_value(best.value, LIVE_DIGITS), "bold green"),
        f" {strip_control_characters(view.metric or '')} in {_name_trial(best)}   ",
        (format_params(best.params), "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _build_table(
    trials: Iterable[RunningTrial], metric: str | None, *, bars: int, wide: bool
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, expand=True)
    for name in ("trial", "slot", "step"):
        table.add_column(name, justify="right", no_wrap=True)
    head = Text(strip_control_characters(metric or "objective"), overflow="ellipsis", no_wrap=True)
    table.add_column(head, justify="right", no_wrap=True, max_width=24)
    if bars:
        table.add_column("", no_wrap=True, width=bars)
    table.add_column(
        "other metrics",
        no_wrap=True,
        overflow="ellipsis",
        max_width=48 if wide else None,
        ratio=None if wide else 1,
    )
    if wide:
        table.add_column("params", no_wrap=True, overflow="ellipsis", ratio=1, style="dim")
    for trial in trials:
        value = trial.metrics.get(metric or "")
        cells: list[RenderableType] = [
            _format_number(trial),
            str(trial.slot),
            _format_step(trial),
            Text(format_value(value, LIVE_DIGITS), style="bold"),
        ]
        if bars:
            cells.append(Text(draw_sparkline(trial.curve.values(), bars), style="cyan"))
        cells.append(_format_other_metrics(trial, metric))
        if wide:
            cells.append(Text(format_params(trial.params)))
        table.add_row(*cells)
    return table


def _format_number(trial: RunningTrial) -> Text:
    again = (f" (attempt {trial.attempt})", "magenta") if trial.attempt else ""
    return Text.assemble(str(trial.number), again)


def _format_step(trial: RunningTrial) -> Text:
    if trial.pruned_at is not None:
        return Text("stopping", style="yellow")
    if trial.step is None:
        return Text("starting", style="dim")
    return Text.assemble(str(trial.step + 1), (f"/{trial.budget}" if trial.budget else "", "dim"))


def _format_other_metrics(trial: RunningTrial, metric: str | None) -> Text:
    names = islice(sorted(name for name in trial.metrics if name != metric), 8)
    return Text("  ").join(
        Text.assemble(
            (f"{strip_control_characters(name)} ", "dim"),
            f"{format_value(trial.metrics[name], PARAM_DIGITS):<6}",
        )
        for name in names
    )


def _format_progress(view: StudyView) -> str:
    best = view.best
    value = (
        "no value yet"
        if best is None
        else f"best {format_value(best.value, LIVE_DIGITS)} in {_name_trial(best)}"
    )
    left = "" if view.left_s is None else f", about {format_clock(view.left_s)} left"
    done = f"{format_done(view.n_done, view.n_trials)} trials done"
    study = strip_control_characters(view.study)
    return f"{study}: {done}, {_format_open_trials(view)}, {value}{left}"


def _name_trial(best: Best) -> str:
    """Name the best trial, and say of a trial that is not complete yet that the trial runs."""
    return f"{'running ' if best.is_running else ''}trial {best.number}"


def _format_open_trials(view: StudyView) -> str:
    """Format the number of running trials, and of trials whose verdict has not arrived."""
    return f"{len(view.running)} running" + (f", {len(view.ended)} ended" if view.ended else "")


def draw_sparkline(values: Iterable[float], width: int = _SPARK) -> str:
    """Format values as a row of bars from the lowest to the highest value.

    Example:
        >>> draw_sparkline([0.0, 0.5, 1.0])
        '▁▄█'
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) > width:
        spread = (len(finite) - 1) / (width - 1)
        finite = [finite[round(i * spread)] for i in range(width)]
    if not finite:
        return ""
    low, high = min(finite) / 2, max(finite) / 2  # halves, so that high - low cannot overflow
    if low == high:
        return _BARS[0] * len(finite)
    top = len(_BARS) - 1
    return "".join(_BARS[int((value / 2 - low) / (high - low) * top)] for value in finite)
