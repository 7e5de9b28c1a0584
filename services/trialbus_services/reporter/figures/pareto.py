"""Figures of studies with several objectives."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import optuna.visualization as plots
import plotly.graph_objects as go
from optuna.study import StudyDirection

from trialbus_services.reporter.figures.figure import BEST, GOOD, get_traces
from trialbus_services.reporter.snapshot import Snapshot, is_finite

MOST_POINTS = 1000


def draw_pareto(study: Snapshot) -> go.Figure:
    """Draw two or three objectives of a study, with the Pareto front in orange."""
    figure = plots.plot_pareto_front(study, target_names=study.metrics)
    styles = {
        "Infeasible Trial": ("infeasible", "#b9bec5"),
        "Best Trial": ("on the front", BEST),
    }
    for trace in get_traces(figure):
        label = trace.hovertemplate.partition("<extra>")[2].partition("<")[0]
        name, color = styles.get(label, ("dominated", GOOD))
        trace.update(name=name, showlegend=True)
        size = 4 if trace.type == "scatter3d" else 8
        trace.marker = {"color": color, "size": size, "line": {"width": 0}}
    figure.update_layout(legend_title=None)
    return figure


def compute_reference_point(study: Snapshot) -> list[float]:
    """Return the worst value of each objective among the complete trials, and a tenth more.

    Optuna leaves the choice of the reference point to whoever asks for a hypervolume. From this
    one, every trial counts, and those at the end of the front a little.
    """
    values = [trial.values for trial in study.complete_trials() if is_finite(trial)]
    point: list[float] = []
    for direction, column in zip(study.directions, zip(*values, strict=True), strict=True):
        low, high = min(column), max(column)
        margin = 0.1 * (high - low) or 0.1 * abs(high) or 0.1
        point.append(high + margin if direction is StudyDirection.MINIMIZE else low - margin)
    return point


def draw_hypervolume(study: Snapshot) -> go.Figure:
    """Draw the hypervolume after each complete trial, from `compute_reference_point`."""
    finite = study.with_trials([trial for trial in study.complete_trials() if is_finite(trial)])
    figure = plots.plot_hypervolume_history(finite, compute_reference_point(finite))
    figure.update_traces(mode="lines", line_color=BEST)
    return figure
