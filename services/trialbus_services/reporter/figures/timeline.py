"""Figure of the time and place of each trial."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from trialbus_services.optimizer.attributes import SLOT, WORKER
from trialbus_services.reporter.snapshot import Snapshot, compute_run_time
from trialbus_services.reporter.study_summary import get_state
from trialbus_services.views.formats import format_duration

MOST_BARS = 1000
STATES = {
    "complete": "#4c9f70",
    "pruned": "#c9a13b",
    "fail": "#c4504b",
    "lost": "#8a68b8",
    "running": "#5b8fd0",
}


def get_started_trials(study: Snapshot) -> list[FrozenTrial]:
    """Return the started trials."""
    return [trial for trial in study.recorded if trial.datetime_start]


def draw_timeline(study: Snapshot) -> go.Figure:
    """Draw a bar for each of the last `MOST_BARS` trials: a row for each slot of each worker.

    Trials of which no worker is known have a row each, as in Optuna's own figure.

    Args:
        study: The study.

    Source:
        The same bars as `optuna.visualization.plot_timeline`.
    """
    trials = get_started_trials(study)[-MOST_BARS:]
    # The bar of a running trial ends at the last known time.
    last = max(max(_ends(trial)) for trial in trials)
    by_state: defaultdict[str, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        by_state[get_state(trial)].append(trial)
    placed = any(trial.user_attrs.get(WORKER) for trial in trials)
    figure = go.Figure()
    for state, color in STATES.items():
        bars = by_state[state]
        if not bars:
            continue
        figure.add_bar(
            name=state,
            orientation="h",
            x=[_compute_length_ms(trial, last) for trial in bars],
            base=[_start(trial).isoformat() for trial in bars],
            y=[_format_row(trial) if placed else trial.number for trial in bars],
            marker={"color": color, "line": {"width": 0.5, "color": "rgba(255,255,255,0.6)"}},
            customdata=[
                [trial.number, _format_length(trial), _format_row(trial)] for trial in bars
            ],
            hovertemplate="trial %{customdata[0]}<br>%{customdata[2]}<br>%{customdata[1]}"
            f"<extra>{state}</extra>",
        )
    figure.update_xaxes(type="date")
    if placed:
        rows = sorted({_format_row(trial) for trial in trials}, reverse=True)
        figure.update_yaxes(type="category", categoryorder="array", categoryarray=rows)
    else:
        figure.update_yaxes(title="trial")
    figure.update_layout(barmode="overlay", showlegend=True, hovermode="closest")
    return figure


def _format_row(trial: FrozenTrial) -> str:
    worker, slot = trial.user_attrs.get(WORKER), trial.user_attrs.get(SLOT)
    if not worker:
        return "worker not known"
    return f"{worker} · {slot}" if slot is not None else f"{worker}"


def _start(trial: FrozenTrial) -> datetime:
    return trial.datetime_start or datetime.min  # noqa: DTZ901 - `started` leaves no such trial


def _ends(trial: FrozenTrial) -> list[datetime]:
    return [_start(trial), trial.datetime_complete or _start(trial)]


def _compute_length_ms(trial: FrozenTrial, last: datetime) -> float:
    return ((trial.datetime_complete or last) - _start(trial)).total_seconds() * 1000


def _format_length(trial: FrozenTrial) -> str:
    time = compute_run_time(trial)
    return format_duration(time) if time else "still running"
