"""Figure of parallel coordinates, in colours for light and dark pages."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from typing import Any, cast

import optuna.visualization as plots
import plotly.colors
import plotly.graph_objects as go
from optuna.study import StudyDirection

from trialbus_services.reporter.figures.figure import SCALE, get_traces
from trialbus_services.reporter.snapshot import Snapshot

#: A trial is a line, and a thousand of them are a blot.
MOST_LINES = 200


def draw_parallel(study: Snapshot, params: list[str] | None) -> go.Figure:
    """Draw a line for each complete trial of a study, the best in orange.

    Several objectives have an axis each, and the colour is the rank.

    Args:
        study: The study, or a sample of it.
        params: Params that have an axis; None for all.
    """
    single = len(study.directions) == 1
    # Of several objectives Optuna has the names from the study.
    figure = plots.plot_parallel_coordinate(study, params=params, target_name=study.metrics[0])
    lines = [t for t in get_traces(figure) if t.mode == "lines" and t.customdata is not None]
    if single:
        # The first axis is the objective, scaled to 0..1.
        low_is_best = study.directions[0] is StudyDirection.MINIMIZE
        heights = [1 - float(t.y[0]) if low_is_best else float(t.y[0]) for t in lines]
    else:
        low_is_best = True
        # Optuna draws rank by rank, the best last, and gives each a colour of its own.
        ranks = {t.line.color: None for t in lines}
        heights_by_color = {color: i / max(len(ranks) - 1, 1) for i, color in enumerate(ranks)}
        heights = [heights_by_color[t.line.color] for t in lines]
    for trace, height in zip(lines, heights, strict=True):
        (color,) = cast("list[str]", plotly.colors.sample_colorscale(SCALE, height))
        trace.update(line_color=color, opacity=0.8)

    def recolor_bar(trace: Any) -> None:
        if trace.marker.showscale:
            trace.marker.update(colorscale=SCALE, reversescale=low_is_best)

    figure.for_each_trace(recolor_bar, selector={"type": "scatter"})
    return figure
