"""The figures of a report. What they mean is Optuna's; how they look is ours."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import optuna
import optuna.visualization as plots
import plotly.colors
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

_COLORS = ["#3b76c4", "#e08a3c", "#4c9f70", "#c4504b", "#8a68b8", "#6b7785"]
_BEST, _COMPLETE, _PRUNED = "#d9762b", "#5b8fd0", "#a0a6ad"
_SCALE = [_PRUNED, _COMPLETE, _BEST]
_STATES = {
    "COMPLETE": "#4c9f70",
    "PRUNED": "#c9a13b",
    "FAIL": "#c4504b",
    "RUNNING": _COMPLETE,
    "WAITING": _PRUNED,
}
_MOST_CURVES = 300
_MOST_PARAMS = 12


@dataclass(frozen=True)
class Figure:
    """A figure of the page, or the sentence that stands in its place.

    Attributes:
        key: Name for links within the page.
        title: Heading.
        about: One sentence on how to read it.
        figure: The Plotly figure, or None.
        missing: Why there is none.
    """

    key: str
    title: str
    about: str
    figure: go.Figure | None = None
    missing: str | None = None


def build(
    study: optuna.Study, trials: Sequence[FrozenTrial], metrics: Sequence[str]
) -> list[Figure]:
    """Build every figure that the study has something for.

    Args:
        study: The study.
        trials: Its trials, read once by the caller.
        metrics: Name of each objective.

    Source:
        `optuna.visualization`.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    single = len(metrics) == 1
    n_params = len({name for trial in complete for name in trial.params})
    name = metrics[0]
    target: dict[str, Any] = {"target_name": name}
    if not single:
        target["target"] = _first_value
    # Optuna explains low values of a target that it is given, whatever the direction.
    explained: dict[str, Any] = (
        target if single else target | {"target": _first_value_to_minimize(study)}
    )
    some = None if complete else "No trial was completed."
    several = some or (None if len(complete) > 1 else "It takes at least two complete trials.")
    varied = several or (None if _varies(complete) else "All complete trials have the same value.")
    pair = varied or (None if n_params > 1 else "It takes at least two params.")
    params = sorted({p for trial in complete for p in trial.params})[:_MOST_PARAMS]
    chosen = params if n_params > _MOST_PARAMS else None
    important = _most_important(study, explained) if pair is None else []
    history = f"Each trial's {name} and the best so far."
    recipes: list[tuple[str, str, str, str | None, Callable[[], go.Figure]]] = []
    if not single:
        many = None if len(metrics) <= 3 else "It shows two or three objectives."
        recipes.append(
            (
                "pareto",
                "Pareto front",
                "No trial on the front is worse than another in every objective.",
                some or many,
                lambda: plots.plot_pareto_front(study, target_names=list(metrics)),
            )
        )
    recipes += [
        (
            "history",
            "Optimization history",
            history,
            some,
            lambda: plots.plot_optimization_history(study, **target),
        ),
        (
            "intermediate",
            "Intermediate values",
            f"{name} at every step; the best trial highlighted, pruned ones grey.",
            _no_curves(trials, single=single),
            lambda: _curves(study, trials, name),
        ),
        (
            "importances",
            "Param importances",
            f"How much of the spread of {name} each param explains.",
            pair,
            lambda: plots.plot_param_importances(study, **explained),
        ),
        (
            "parallel",
            "Parallel coordinates",
            "A line for each complete trial, from grey through blue to orange for the best.",
            varied,
            lambda: _parallel(study, chosen, target),
        ),
        (
            "slices",
            "Slices",
            f"{name} over each param.",
            some,
            lambda: plots.plot_slice(study, params=chosen, **target),
        ),
        (
            "contour",
            "Contour",
            f"{name} over the two most important params.",
            pair or (None if len(important) > 1 else "No two params explain the value."),
            lambda: plots.plot_contour(study, params=important[:2], **target),
        ),
        (
            "rank",
            "Rank",
            "Trials over the most important params, coloured by rank.",
            pair or (None if len(important) > 1 else "No two params explain the value."),
            lambda: plots.plot_rank(study, params=important[:3], **target),
        ),
        (
            "edf",
            "Empirical distribution",
            f"Share of trials at or below a {name}.",
            several,
            lambda: plots.plot_edf(study, **target),
        ),
        (
            "timeline",
            "Timeline",
            "When each trial ran and how it ended.",
            None if trials else "No trial ran.",
            lambda: plots.plot_timeline(study),
        ),
    ]
    return [_make(*recipe) for recipe in recipes]


def _make(
    key: str, title: str, about: str, missing: str | None, draw: Callable[[], go.Figure]
) -> Figure:
    if missing:
        return Figure(key, title, about, missing=missing)
    with _expected_warnings_ignored():
        try:
            figure = draw()
        except (ValueError, RuntimeError, ZeroDivisionError, ImportError) as error:
            return Figure(
                key, title, about, missing=f"Optuna cannot draw it for this study: {error}"
            )
    if not cast(tuple[object, ...], figure.data):
        return Figure(key, title, about, missing="There is nothing to show in it.")
    return Figure(key, title, about, _styled(figure, tall=key in {"rank", "contour"}))


def _styled(figure: go.Figure, *, tall: bool) -> go.Figure:
    """Give a figure the page's look; text and grid get their colours from its style sheet."""
    figure.update_layout(
        template="none",
        colorway=_COLORS,
        title=None,
        autosize=True,
        width=None,
        height=560 if tall else 420,
        margin={"l": 70, "r": 30, "t": 40, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"bgcolor": "rgba(0,0,0,0)", "orientation": "h", "x": 0, "y": 1.12},
        hoverlabel={"font": {"family": "ui-monospace, monospace"}},
    )
    figure.update_annotations(font_color=None)
    for state, color in _STATES.items():
        figure.update_traces(marker_color=color, selector={"type": "bar", "name": state})
    return figure


def _parallel(study: optuna.Study, params: list[str] | None, target: dict[str, Any]) -> go.Figure:
    """Optuna's figure in colours that can be told from a light page and from a dark one."""
    figure = plots.plot_parallel_coordinate(study, params=params, **target)
    low_is_best = study.directions[0] == optuna.study.StudyDirection.MINIMIZE
    scale = _SCALE[::-1] if low_is_best else _SCALE

    def recolor(trace: Any) -> None:
        if trace.mode == "lines" and trace.customdata is not None:
            # The first axis is the objective, scaled to 0..1.
            color = cast("list[str]", plotly.colors.sample_colorscale(scale, float(trace.y[0])))
            trace.update(line_color=color[0], opacity=0.8)
        elif trace.marker.showscale:
            trace.marker.update(colorscale=scale, reversescale=False)

    figure.for_each_trace(recolor, selector={"type": "scatter"})
    return figure


def _curves(study: optuna.Study, trials: Sequence[FrozenTrial], metric: str) -> go.Figure:
    shown = [trial for trial in trials if trial.intermediate_values][-_MOST_CURVES:]
    complete = any(trial.state == TrialState.COMPLETE for trial in trials)
    best = study.best_trial.number if complete else None
    figure = go.Figure()
    # The best one last, so that it lies on top.
    for trial in sorted(shown, key=lambda t: (t.number == best, t.state == TrialState.COMPLETE)):
        pruned = trial.state == TrialState.PRUNED
        is_best = trial.number == best
        steps, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        figure.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers" if is_best else "lines",
            line={
                "color": _BEST if is_best else _PRUNED if pruned else _COMPLETE,
                "width": 3 if is_best else 1.2,
                "dash": "dot" if pruned else "solid",
            },
            marker={"size": 5},
            opacity=1.0 if is_best else 0.75,
            name=f"trial {trial.number}, {'best' if is_best else trial.state.name.lower()}",
            showlegend=False,
        )
        if pruned:
            figure.add_scatter(
                x=steps[-1:],
                y=values[-1:],
                mode="markers",
                marker={"symbol": "x", "size": 7, "color": _PRUNED},
                showlegend=False,
                hoverinfo="skip",
            )
    figure.update_layout(xaxis_title="step", yaxis_title=metric, hovermode="closest")
    return figure


def _no_curves(trials: Sequence[FrozenTrial], *, single: bool) -> str | None:
    if not single:
        return "A study with several objectives keeps no intermediate values."
    return (
        None
        if any(trial.intermediate_values for trial in trials)
        else "No intermediate value was reported."
    )


@contextmanager
def _expected_warnings_ignored() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Infinite values are drawn as far as they can be.
        warnings.simplefilter("ignore", RuntimeWarning)
        for text in ("The number of trials is too small", "PedAnovaImportanceEvaluator computes"):
            warnings.filterwarnings("ignore", message=text, category=UserWarning)
        yield


def _most_important(study: optuna.Study, target: dict[str, Any]) -> list[str]:
    try:
        with _expected_warnings_ignored():
            return list(optuna.importance.get_param_importances(study, target=target.get("target")))
    except (ValueError, RuntimeError, ZeroDivisionError):
        return []  # the figure of the importances itself says why


def _varies(complete: Sequence[FrozenTrial]) -> bool:
    return len({trial.values[0] for trial in complete}) > 1


def _first_value_to_minimize(study: optuna.Study) -> Callable[[FrozenTrial], float]:
    sign = 1 if study.directions[0] == optuna.study.StudyDirection.MINIMIZE else -1
    return lambda trial: sign * _first_value(trial)


def _first_value(trial: FrozenTrial) -> float:
    return float(trial.values[0])
