"""One figure of a page: how it is made without harm to others, and its look."""

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
    """A figure of the page, or the sentence that stands in its place.

    Attributes:
        key: Name for links within the page, and of files.
        title: Heading.
        about: One sentence on how to read it.
        figure: The Plotly figure, or None.
        missing: Why there is none.
        note: What is left out of it.
        width: Pixels below which it is not squeezed but scrolled.
    """

    key: str
    title: str
    about: str
    figure: go.Figure | None = None
    missing: str | None = None
    note: str | None = None
    width: int = 0


@dataclass(frozen=True)
class Recipe:
    """How a figure is made.

    Attributes:
        missing: Why it cannot be drawn for this study, if that is known beforehand.
        draw: Makes it.
        tall: Whether it needs more height than others.
        note: See `Figure`, as of `width`.
    """

    key: str
    title: str
    about: str
    draw: Callable[[], go.Figure]
    missing: str | None = None
    tall: bool = False
    note: str | None = None
    width: int = 0

    def make(self) -> Figure:
        """Make the figure; whatever goes wrong stands in its place."""
        if self.missing:
            return self._without(self.missing)
        try:
            with expected_warnings_ignored():
                figure = _checked(self.draw())
                styled = style(figure, tall=self.tall)
        except Exception as error:  # noqa: BLE001 - a figure may be anybody's code
            logger.warning("no figure %r: %s: %s", self.key, type(error).__name__, error)
            return self._without(f"It could not be drawn. {type(error).__name__}: {error}")
        if not traces(figure):
            return self._without("There is nothing to show in it.")
        return Figure(self.key, self.title, self.about, styled, None, self.note, self.width)

    def _without(self, reason: str) -> Figure:
        return Figure(self.key, self.title, self.about, missing=reason)


def _checked(figure: object) -> go.Figure:
    if isinstance(figure, go.Figure):
        return figure
    kind = type(figure).__name__
    raise TypeError(f"it is a {kind} (expected a plotly.graph_objects.Figure)")


def traces(figure: go.Figure) -> list[Any]:
    """Return the traces of a figure, which Plotly types in part."""
    return list(cast("tuple[Any, ...]", figure.data))


def style(figure: go.Figure, *, tall: bool = False) -> go.Figure:
    """Give a figure the page's look; text and grid get their colours from its style sheet."""
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
    """Give what is coloured by a number the page's scale instead of Optuna's blues."""

    def change(trace: Any) -> None:
        if trace.type == "contour":
            trace.update(colorscale="Viridis", reversescale=low_is_best)
        elif trace.marker.colorscale is not None:
            trace.marker.update(colorscale=SCALE, line={"width": 0})

    return figure.for_each_trace(change)


@contextmanager
def expected_warnings_ignored() -> Generator[None]:
    """Ignore what Optuna warns about figures: it is known, or said on the page."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
