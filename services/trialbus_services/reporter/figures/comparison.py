"""Figures of several studies side by side."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence

import optuna.visualization as plots
import plotly.graph_objects as go
from optuna.study import StudyDirection
from optuna.trial import TrialState

from trialbus_services.reporter.figures.figure import COLORS, Figure, Recipe, get_traces
from trialbus_services.reporter.figures.importances import MOST_BARS, compute_importances
from trialbus_services.reporter.snapshot import Snapshot, is_feasible, is_finite

_MOST_POINTS = 1000


def build_comparison(studies: Sequence[Snapshot]) -> list[Figure]:
    """Build the figures that compare studies with a single objective.

    Args:
        studies: Studies to compare, of different names.
    """
    ready = [
        study
        for study in studies
        if len(study.directions) == 1 and any(map(is_finite, study.complete_trials()))
    ]
    metric = ready[0].metrics[0] if ready else "the objective"
    none = None if ready else "No study with one objective has a complete trial."
    recipes = [
        Recipe(
            "history",
            "Optimization history",
            f"Each trial's {metric} and the best so far, over the number of the trial.",
            lambda: _draw_history(ready, metric),
            none,
        ),
        Recipe(
            "progress",
            "Progress over time",
            f"The best {metric} so far, over the minutes since each study's first trial began.",
            lambda: _draw_progress(ready, metric),
            none,
        ),
        Recipe(
            "edf",
            "Empirical distribution",
            f"Share of the complete trials at or below each {metric}.",
            lambda: plots.plot_edf(list(ready), target_name=metric),
            none,
        ),
        Recipe(
            "importances",
            "Param importances",
            "How much of the spread of its objective each param explains, in each study.",
            lambda: _draw_importances(ready),
            none,
        ),
    ]
    return [recipe.build() for recipe in recipes]


def _draw_history(studies: Sequence[Snapshot], metric: str) -> go.Figure:
    figure = plots.plot_optimization_history(list(studies), target_name=metric)
    names = [study.study_name for study in studies]
    # Optuna draws three traces for each study: all trials, the best so far, infeasible trials.
    for i, trace in enumerate(get_traces(figure)):
        name = names[i // 3]
        color = COLORS[(i // 3) % len(COLORS)]
        n = len(trace.x)
        indices = [j * n // _MOST_POINTS for j in range(_MOST_POINTS)] if n > _MOST_POINTS else None
        if indices:
            trace.update({axis: [trace[axis][j] for j in indices] for axis in ("x", "y")})
        trace.update(name=name, legendgroup=name, showlegend=trace.mode == "lines")
        if trace.mode == "lines":
            trace.update(line={"color": color, "shape": "hv", "width": 2.5})
        else:
            trace.update(marker={"color": color, "size": 5}, opacity=0.45)
    return figure


def _draw_progress(studies: Sequence[Snapshot], metric: str) -> go.Figure:
    figure = go.Figure()
    for i, study in enumerate(studies):
        starts = [t.datetime_start for t in study.recorded if t.datetime_start]
        if not starts:
            continue
        better = min if study.directions[0] is StudyDirection.MINIMIZE else max
        minutes: list[float] = []
        best: list[float] = []
        done = [
            (trial.datetime_complete, trial.values[0])
            for trial in study.get_trials(states=(TrialState.COMPLETE,))
            if trial.datetime_complete and is_finite(trial) and is_feasible(trial)
        ]
        for ended, value in sorted(done):
            # Only where it gets better: a long study has few such moments.
            if not best or better(best[-1], value) != best[-1]:
                minutes.append((ended - min(starts)).total_seconds() / 60)
                best.append(value)
        if best:
            minutes.append((max(done)[0] - min(starts)).total_seconds() / 60)
            best.append(best[-1])
            line = {"color": COLORS[i % len(COLORS)], "shape": "hv", "width": 2.5}
            figure.add_scatter(x=minutes, y=best, mode="lines", name=study.study_name, line=line)
    figure.update_layout(xaxis_title="minutes", yaxis_title=f"best {metric}", showlegend=True)
    return figure


def _draw_importances(studies: Sequence[Snapshot]) -> go.Figure:
    figure = go.Figure()
    for i, study in enumerate(studies):
        ranked = list(compute_importances(study).items())[:MOST_BARS]
        if ranked:
            figure.add_bar(
                orientation="h",
                # The most important one on top.
                y=[param for param, _ in reversed(ranked)],
                x=[share for _, share in reversed(ranked)],
                name=study.study_name,
                marker={"color": COLORS[i % len(COLORS)]},
            )
    figure.update_layout(xaxis_title="importance", barmode="group", showlegend=True)
    return figure
