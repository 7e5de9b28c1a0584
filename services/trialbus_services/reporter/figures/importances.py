"""Param importances of an objective, with regard to the objective's direction."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import optuna
import optuna.visualization as plots
import plotly.graph_objects as go
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from trialbus_services.reporter.figures.figure import get_traces, ignore_expected_warnings
from trialbus_services.reporter.snapshot import Snapshot

logger = logging.getLogger(__name__)

MOST_BARS = 20


def compute_importances(study: Snapshot, objective: int = 0) -> dict[str, float]:
    """Return the importance of each param, the highest first; empty if Optuna finds none.

    The figure of the importances says why there are none; other figures do without them.
    """
    try:
        with ignore_expected_warnings():
            return optuna.importance.get_param_importances(study, target=_target(study, objective))
    except Exception:
        logger.debug("no importances", exc_info=True)
        return {}


def draw_importances(study: Snapshot) -> go.Figure:
    """Draw a bar for each of the `MOST_BARS` most important params, and of each objective."""
    figure = go.Figure()
    important = set(list(compute_importances(study))[:MOST_BARS])
    for i, metric in enumerate(study.metrics):
        plot = plots.plot_param_importances(
            study, target=_target(study, i), target_name=metric, params=None
        )
        for bar in get_traces(plot):
            indices = [k for k, param in enumerate(bar.y) if param in important]
            bar.update(
                {
                    name: [bar[name][k] for k in indices]
                    for name in ("x", "y", "text", "hovertemplate")
                }
            )
            figure.add_trace(bar)
        figure.update_layout(cast("Any", plot).layout)
    figure.update_yaxes(automargin=True, title=None)
    return figure


def _target(study: Snapshot, objective: int) -> Callable[[FrozenTrial], float] | None:
    """Return the target of PED-ANOVA, negated for objectives to maximize."""
    if len(study.directions) == 1:
        return None
    sign = 1 if study.directions[objective] is StudyDirection.MINIMIZE else -1

    def value(trial: FrozenTrial) -> float:
        return sign * float(trial.values[objective])

    return value


def make_target(study: Snapshot, objective: int = 0) -> dict[str, Any]:
    """Return the arguments of Optuna's plots for an objective of a study."""
    name = {"target_name": study.metrics[objective]}
    if len(study.directions) == 1:
        return name

    def value(trial: FrozenTrial) -> float:
        return float(trial.values[objective])

    return name | {"target": value}
