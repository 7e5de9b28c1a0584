"""Figures of a page: recipes, error handling and style."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import optuna
import plotly.graph_objects as go

logger = logging.getLogger(__name__)

BEST, GOOD, OTHER = "#d9762b", "#5b8fd0", "#a0a6ad"
#: From the worst to the best, or from the first to the last; all can be told from black and white.
SCALE = [OTHER, GOOD, BEST]
COLORS = ["#3b76c4", "#e08a3c", "#4c9f70", "#c4504b", "#8a68b8", "#6b7785", "#2b9aa0", "#b5649b"]
_TALL = 560
_USUAL = 420


@dataclass(frozen=True)
class Figure:
    """Figure of a page, or the reason why the figure is missing."""

    key: str
    """Name for links within the page, and for files."""

    title: str
    """Heading."""

    about: str
    """Sentence on how to read the figure."""

    figure: go.Figure | None = None
    """The Plotly figure; None where it is missing."""

    missing: str | None = None
    """Reason why the figure is missing."""

    note: str | None = None
    """Note on what the figure leaves out."""

    width: int = 0
    """Pixels below which the figure scrolls instead of shrinking."""


@dataclass(frozen=True)
class Recipe:
    """Recipe of a figure: the texts, and a function that draws the figure."""

    key: str
    """See `Figure.key`."""

    title: str
    """See `Figure.title`."""

    about: str
    """See `Figure.about`."""

    draw: Callable[[], go.Figure]
    """Draws the figure."""

    missing: str | None = None
    """Reason why the figure cannot be drawn, where that is known beforehand."""

    tall: bool = False
    """Whether the figure needs more height than others."""

    note: str | None = None
    """See `Figure.note`."""

    width: int = 0
    """See `Figure.width`."""

    def build(self) -> Figure:
        """Build the figure; a failure becomes the reason why the figure is missing."""
        if self.missing:
            return self._create_missing(self.missing)
        try:
            with ignore_expected_warnings():
                figure = require_figure(self.draw())
                styled = style(figure, tall=self.tall)
        except BaseException as error:  # noqa: BLE001 - a figure may be users' code
            reason = describe_failure(error)
            logger.warning("no figure %r: %s", self.key, reason)
            return self._create_missing(f"It could not be drawn. {reason}")
        if not get_traces(figure):
            return self._create_missing("There is nothing to show in it.")
        return Figure(self.key, self.title, self.about, styled, None, self.note, self.width)

    def _create_missing(self, reason: str) -> Figure:
        return Figure(self.key, self.title, self.about, missing=reason)


def describe_failure(error: BaseException) -> str:
    """Return the type and the text of an error of a figure.

    Raises:
        KeyboardInterrupt: That is the error: a person wants the process to end.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's class may fail to describe itself
        return type(error).__name__


def require_figure(figure: object) -> go.Figure:
    """Return what a function of a figure returned, if that is a figure.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(figure, go.Figure):
        return figure
    raise TypeError(f"it is a {type(figure).__name__} (expected a plotly.graph_objects.Figure)")


def get_traces(figure: go.Figure) -> list[Any]:
    """Return the traces of a figure, which Plotly types in part."""
    return list(cast("tuple[Any, ...]", figure.data))


def style(figure: go.Figure, *, tall: bool = False) -> go.Figure:
    """Apply the page's style to a figure; the style sheet colours text and grid."""
    figure.update_layout(
        template="none",
        colorway=COLORS,
        title=None,
        autosize=True,
        width=None,
        height=_TALL if tall else _USUAL,
        margin={"l": 70, "r": 30, "t": 40, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": None},
        legend={"bgcolor": "rgba(0,0,0,0)", "orientation": "h", "x": 0, "y": 1.02}
        | {"xanchor": "left", "yanchor": "bottom"},
        hoverlabel={"font": {"family": "ui-monospace, monospace"}},
    )
    figure.update_annotations(font_color=None)
    return figure


def recolor(figure: go.Figure, *, low_is_best: bool = False) -> go.Figure:
    """Replace Optuna's colour scales in a figure by the page's scale."""

    def change(trace: Any) -> None:
        if trace.type == "contour":
            trace.update(colorscale="Viridis", reversescale=low_is_best)
        elif trace.marker.colorscale is not None:
            trace.marker.update(colorscale=SCALE, line={"width": 0})

    return figure.for_each_trace(change)


@contextmanager
def ignore_expected_warnings() -> Generator[None]:
    """Ignore Optuna's warnings about figures, which are known or told on the page."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
