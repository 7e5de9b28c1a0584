"""Figures as pictures, drawn by a browser through Kaleido."""

# Plotly and Kaleido are typed in part and have no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from trialbus_services.reporter.figures.figure import Figure

logger = logging.getLogger(__name__)

_WIDTH = 1000
_INK, _GRID = "#1d2430", "#e6e9ed"
_TIMEOUT_S = 90.0


def write_images(
    figures: Sequence[Figure], folder: Path, formats: Sequence[str]
) -> tuple[list[Path], str | None]:
    """Write each figure in each format, in light colours; return the paths and any problem.

    Args:
        figures: Figures; the ones that could not be drawn are left out.
        folder: Folder of the files; made if missing.
        formats: `png`, `svg`.
    """
    drawn = [
        (figure.key, figure.figure, figure.width) for figure in figures if figure.figure is not None
    ]
    if not drawn or not formats:
        return [], None
    try:
        import kaleido
    except ImportError:
        return [], "No pictures: the package kaleido is not installed (trialbus[export])."
    folder.mkdir(parents=True, exist_ok=True)
    specs: list[dict[str, Any]] = [
        {
            "fig": _apply_light_theme(figure).to_dict(),
            "path": str(folder / f"{key}.{format_}"),
            "opts": {
                "format": format_,
                "width": max(_WIDTH, width),
                "height": figure.layout.height,
                "scale": 2 if format_ == "png" else 1,
            },
        }
        for key, figure, width in drawn
        for format_ in formats
    ]
    try:
        kaleido.write_fig_from_object_sync(
            specs, cancel_on_error=True, kopts={"timeout": _TIMEOUT_S, "mathjax": False}
        )
    except Exception as error:  # a browser may fail in any way
        logger.debug("kaleido failed", exc_info=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        if type(error).__name__ == "ChromeNotFoundError":
            reason = (
                "there is no Chrome or Chromium on this machine (BROWSER_PATH may say where it is)"
            )
        return [], f"No pictures: {reason.rstrip('.')}."
    return [Path(spec["path"]) for spec in specs], None


def _apply_light_theme(figure: go.Figure) -> go.Figure:
    light = go.Figure(figure)
    light.update_layout(paper_bgcolor="white", plot_bgcolor="white", font_color=_INK)
    light.update_xaxes(gridcolor=_GRID, zerolinecolor=_GRID, linecolor=_GRID, automargin=True)
    light.update_yaxes(gridcolor=_GRID, zerolinecolor=_GRID, linecolor=_GRID, automargin=True)
    return light
