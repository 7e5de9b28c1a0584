"""Figure of the intermediate values of trials."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.reporter.figures.figure import BEST, GOOD, OTHER
from trialbus_services.reporter.snapshot import Snapshot, get_curve, sample_evenly

MOST_CURVES = 200
_MOST_STEPS = 200
_REPORTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def get_reported_trials(study: Snapshot) -> list[FrozenTrial]:
    """Return the trials with intermediate values."""
    return [trial for trial in study.recorded if trial.state in _REPORTED and get_curve(trial)]


def draw_curves(study: Snapshot, metric: str) -> go.Figure:
    """Draw the curves of `MOST_CURVES` trials: the best on top, pruned trials dotted and grey.

    Args:
        study: The study.
        metric: Name of the reported metric.

    Source:
        The same values as `optuna.visualization.plot_intermediate_values`.
    """
    best = {trial.number for trial in study.best} if len(study.directions) == 1 else set[int]()
    trials = sample_evenly(get_reported_trials(study), MOST_CURVES, study.best[:1])
    figure = go.Figure()
    for trial in sorted(trials, key=lambda t: (t.number in best, t.state is TrialState.COMPLETE)):
        pruned = trial.state is TrialState.PRUNED
        is_best = trial.number in best
        steps, values = _thin_points(trial)
        figure.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers" if is_best or len(steps) == 1 else "lines",
            line={
                "color": BEST if is_best else OTHER if pruned else GOOD,
                "width": 3 if is_best else 1.2,
                "dash": "dot" if pruned else "solid",
            },
            marker={"size": 5},
            opacity=1.0 if is_best else 0.75,
            name=f"trial {trial.number}, {'best' if is_best else trial.state.name.lower()}",
            showlegend=False,
        )
    _mark_ends(figure, [trial for trial in trials if trial.state is TrialState.PRUNED])
    figure.update_layout(xaxis_title="step", yaxis_title=metric, hovermode="closest")
    return figure


def _thin_points(trial: FrozenTrial) -> tuple[list[int], list[float]]:
    points = sorted(get_curve(trial).items())
    stride = -(-len(points) // _MOST_STEPS)
    thinned = (
        points[::stride] if (len(points) - 1) % stride == 0 else [*points[::stride], points[-1]]
    )
    return [step for step, _ in thinned], [value for _, value in thinned]


def _mark_ends(figure: go.Figure, pruned: Sequence[FrozenTrial]) -> None:
    if not pruned:
        return
    ends = [max(get_curve(trial).items()) for trial in pruned]
    figure.add_scatter(
        x=[step for step, _ in ends],
        y=[value for _, value in ends],
        mode="markers",
        marker={"symbol": "x", "size": 7, "color": OTHER},
        name="pruned here",
        showlegend=True,
        hoverinfo="skip",
    )
