"""The terminal's view of a running study."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trialbus_services.monitor.view import RunningTrial, StudyView

_FRAME_S = 0.125
_PLAIN_EVERY_S = 10.0
_BARS = "▁▂▃▄▅▆▇█"
_SPARK = 16
_STYLES = {
    "complete": "green",
    "pruned": "yellow",
    "failed": "red",
    "interrupted": "magenta",
    "lost": "magenta",
}


class TerminalView:
    """Draws a `StudyView` while a loop feeds it.

    In a terminal a live area shows progress and the running trials, and what ended scrolls by
    above it. Elsewhere plain lines are printed.

    Example:
        >>> with TerminalView(view, console=Console()) as terminal:  # doctest: +SKIP
        ...     for event in events:
        ...         view.apply(event)
        ...         terminal.update()
    """

    def __init__(self, view: StudyView, *, console: Console) -> None:
        self._view = view
        self._console = console
        self._drawn = 0.0
        self._live = (
            Live(self._render(), console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> TerminalView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell()
        if self._live:
            self._live.update(self._render(), refresh=True)
            self._live.stop()

    def update(self) -> None:
        """Draw what changed; cheap enough to call for every event."""
        self._tell()
        now = time.monotonic()
        if now - self._drawn < (_FRAME_S if self._live else _PLAIN_EVERY_S):
            return
        self._drawn = now
        if self._live:
            self._live.update(self._render(), refresh=True)
        elif self._view.state == "running":
            self._console.print(_progress_line(self._view), highlight=False)

    def _tell(self) -> None:
        notes, self._view.notes = self._view.notes, []
        for note in notes:
            style = next((style for word, style in _STYLES.items() if word in note), "")
            self._console.print(Text(note, style=style))

    def _render(self) -> RenderableType:
        view = self._view
        rows = max(1, self._console.height - 8)
        trials = sorted(view.running.values(), key=lambda trial: trial.number)
        parts: list[RenderableType] = [Text(), _bar(view), _counts(view), _best(view)]
        if trials:
            parts.append(_table(trials[:rows], view.metric))
        if len(trials) > rows:
            parts.append(Text(f"  and {len(trials) - rows} more", style="dim"))
        return Group(*parts)


def _bar(view: StudyView) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(width=28)
    line.add_column(no_wrap=True)
    total = view.n_trials or 1
    done = f"{view.n_done}/{view.n_trials or '?'} trials"
    left = "" if view.left_s is None else f", about {_duration(view.left_s)} left"
    line.add_row(
        Text(view.study, style="bold"),
        ProgressBar(total=total, completed=min(view.n_done, total), complete_style="green"),
        Text.assemble(done, (f"  {_duration(view.elapsed_s)}{left}", "dim")),
    )
    return line


def _counts(view: StudyView) -> Text:
    if view.state == "submitted":
        return Text("waiting for the optimizer", style="dim")
    text = Text(f"{len(view.running)} running")
    for state in ("complete", "pruned", "failed"):
        count = view.counts[state]
        text.append("  ")
        text.append(f"{count} {state}", style=_STYLES[state] if count else "dim")
    return text


def _best(view: StudyView) -> Text:
    if view.best is None:
        return Text("no value yet", style="dim")
    return Text.assemble(
        "best ",
        (f"{view.best.value:.5g}", "bold green"),
        f" {view.metric or ''} in trial {view.best.number}  ",
        (shown(view.best.params), "dim"),
    )


def _table(trials: list[RunningTrial], metric: str | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("trial", "slot", "step"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(metric or "curve", no_wrap=True)
    table.add_column("last metrics", no_wrap=True, overflow="ellipsis", ratio=1)
    for trial in trials:
        again = f" (attempt {trial.attempt + 1})" if trial.attempt else ""
        of = f"/{trial.budget}" if trial.budget else ""
        table.add_row(
            f"{trial.number}{again}",
            str(trial.slot),
            "starting" if trial.step is None else f"{trial.step + 1}{of}",
            Text(sparkline(trial.curve), style="cyan"),
            _metrics(trial, metric),
        )
    return table


def _metrics(trial: RunningTrial, metric: str | None) -> Text:
    names = sorted(trial.metrics, key=lambda name: (name != metric, name))
    return Text("  ").join(
        Text.assemble(
            (f"{name} ", "dim"), (f"{trial.metrics[name]:.4g}", "bold" if name == metric else "")
        )
        for name in names
    )


def _progress_line(view: StudyView) -> str:
    best = (
        "no value yet"
        if view.best is None
        else f"best {view.best.value:.5g} in trial {view.best.number}"
    )
    done = f"{view.n_done}/{view.n_trials} trials done"
    return f"{view.study}: {done}, {len(view.running)} running, {best}"


def sparkline(values: list[float], width: int = _SPARK) -> str:
    """Return the newest values as a row of bars between their least and greatest.

    Example:
        >>> sparkline([0.0, 0.5, 1.0])
        '▁▄█'
    """
    shown_values = [value for value in values if math.isfinite(value)][-width:]
    if not shown_values:
        return ""
    low, high = min(shown_values), max(shown_values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[int((value - low) * scale)] for value in shown_values)


def shown(params: dict[str, object]) -> str:
    """Return params on one line, numbers short."""
    return "  ".join(
        f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items()
    )


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")
