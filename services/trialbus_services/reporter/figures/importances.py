"""How much each param explains of an objective, with the objective's direction."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import optuna
import optuna.visualization as plots
import plotly.graph_objects as go
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from trialbus_services.reporter.figures.figure import expected_warnings_ignored, traces
from trialbus_services.reporter.snapshot import Snapshot

MOST_BARS = 20


def importances(study: Snapshot, objective: int = 0) -> dict[str, float]:
    """Return the importance of each param, the highest first; empty where none can be told."""
    try:
        with expected_warnings_ignored():
            return optuna.importance.get_param_importances(study, target=_target(study, objective))
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}


def draw_importances(study: Snapshot) -> go.Figure:
    """Draw a bar for each of the `MOST_BARS` most important params, and of each objective."""
    figure = go.Figure()
    shown = set(list(importances(study))[:MOST_BARS])
    for i, metric in enumerate(study.metrics):
        plot = plots.plot_param_importances(
            study, target=_target(study, i), target_name=metric, params=None
        )
        for bar in traces(plot):
            kept = [k for k, param in enumerate(bar.y) if param in shown]
            bar.update(
                {name: [bar[name][k] for k in kept] for name in ("x", "y", "text", "hovertemplate")}
            )
            figure.add_trace(bar)
        figure.update_layout(cast("Any", plot).layout)
    figure.update_yaxes(automargin=True, title=None)
    return figure


def _target(study: Snapshot, objective: int) -> Callable[[FrozenTrial], float] | None:
    """Return what Optuna is to explain: of a target that it is given, it explains low values."""
    if len(study.directions) == 1:
        return None
    sign = 1 if study.directions[objective] is StudyDirection.MINIMIZE else -1

    def value(trial: FrozenTrial) -> float:
        return sign * float(trial.values[objective])

    return value


def objective_target(study: Snapshot, objective: int = 0) -> dict[str, Any]:
    """Return Optuna's arguments for a figure of one of a study's objectives."""
    name = {"target_name": study.metrics[objective]}
    if len(study.directions) == 1:
        return name

    def value(trial: FrozenTrial) -> float:
        return float(trial.values[objective])

    return name | {"target": value}
