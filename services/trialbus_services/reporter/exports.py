"""The same as the page, as files for programs and for a pull request."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from trialbus_services.reporter.number_format import duration, number
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.summary import Facts, state_of
from trialbus_services.reporter.table import Table

#: Of `study.json`; it changes when a reader of the old one would be wrong.
FORMAT = 1
_MOST_BEST = 10


def as_csv(table: Table) -> str:
    """Return the table of trials as CSV; None is an empty cell."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows([table.header, *table.rows])
    return file.getvalue()


def as_parquet(table: Table) -> bytes:
    """Return the table of trials as Parquet.

    A column of several types, such as a categorical param of numbers and words, is written as
    text.

    Raises:
        ImportError: There is no pyarrow.
    """
    # Neither has types.
    pa: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")

    columns: dict[str, Any] = {}
    for name, values in table.columns.items():
        types: set[type] = {type(value) for value in values if value is not None}
        mixed = len(types) > 1 and not types <= {int, float}
        columns[name] = [None if v is None else str(v) for v in values] if mixed else values
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def as_json(study: Snapshot, facts: Facts) -> str:
    """Return everything about a study as one JSON object.

    Durations are in seconds, times are ISO 8601. JSON has no numbers for what is not finite: such
    values are the strings `NaN`, `Infinity` and `-Infinity`.
    """
    found: dict[str, Any] = {
        "format": FORMAT,
        "name": facts.name,
        "objectives": [
            {"metric": metric, "direction": direction}
            for metric, direction in zip(facts.metrics, facts.directions, strict=True)
        ],
        "counts": facts.counts,
        "wall_s": facts.wall.total_seconds() if facts.wall is not None else None,
        "compute_s": facts.compute.total_seconds(),
        "saved_by_pruning": {"share": facts.saved.share, "s": facts.saved.time.total_seconds()}
        if facts.saved
        else None,
        "best": [trial.number for trial in facts.best],
        "config": facts.config,
        "origin": facts.origin,
        "user_attrs": study.user_attrs,
        "trials": [_trial(trial) for trial in study.recorded],
    }
    return json.dumps(_finite(found), ensure_ascii=False, default=str) + "\n"


def as_params(trial: FrozenTrial, facts: Facts, folder: str) -> str:
    """Return a trial's params as a config of Hydra that overrides an application's.

    Dots in a name make groups, as they do for a worker that hands params to a Hydra application.

    Args:
        trial: Whose params.
        facts: Of its study.
        folder: Name of the folder that the file will be in.
    """
    values = ", ".join(
        f"{metric}={number(value)}"
        for metric, value in zip(facts.metrics, trial.values, strict=True)
    )
    which = "the best" if len(facts.best) == 1 else f"one of {len(facts.best)} on the Pareto front"
    comment = f"trial {trial.number} of {facts.name}, {which}: {values}"
    return (
        "# @package _global_\n"
        f"# {' '.join(comment.split())}\n"
        f"# python train.py --config-dir <the folder above this one> +{folder}=best_params\n"
        + yaml.safe_dump(_nested(trial.params), sort_keys=False, allow_unicode=True)
    )


def as_summary(facts: Facts, importances: Mapping[str, float]) -> str:
    """Return a page of Markdown for a pull request."""
    goals = (f"{d} {_md(m)}" for m, d in zip(facts.metrics, facts.directions, strict=True))
    counts = ", ".join(f"{n} {state}" for state, n in facts.counts.items()) or "no trials"
    lines = [f"## Study {_md(facts.name)}", "", f"{', '.join(goals)} · {counts}", ""]
    if facts.best:
        params = list(dict.fromkeys(name for trial in facts.best for name in trial.params))
        head = ["trial", *facts.metrics, *params]
        lines += [_row(head), _row(["---"] * len(head))]
        for trial in facts.best[:_MOST_BEST]:
            cells = [trial.number, *trial.values, *(trial.params.get(name) for name in params)]
            lines.append(_row([number(cell) for cell in cells]))
        if len(facts.best) > _MOST_BEST:
            lines += ["", f"{len(facts.best) - _MOST_BEST} more are on the Pareto front."]
    else:
        lines.append("No trial is complete and feasible.")
    lines += ["", f"Wall time {duration(facts.wall)}, compute time {duration(facts.compute)}"]
    if facts.saved:
        percent = round(100 * facts.saved.share)
        lines[-1] += f"; pruning saved {duration(facts.saved.time)} ({percent}% of the steps)"
    lines[-1] += "."
    if importances:
        most = [f"{_md(name)} {share:.0%}" for name, share in list(importances.items())[:5]]
        lines += ["", f"Params by importance: {', '.join(most)}."]
    for failure in facts.failures[:3]:
        lines += ["", f"{len(failure.trials)} failed: {_md(failure.reason)}"]
    return "\n".join([*lines, ""])


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": state_of(trial),
        "values": trial.values,
        "params": trial.params,
        "intermediate_values": trial.intermediate_values,
        "constraints": trial.constraints,
        "started": trial.datetime_start.isoformat() if trial.datetime_start else None,
        "ended": trial.datetime_complete.isoformat() if trial.datetime_complete else None,
        "user_attrs": trial.user_attrs,
    }


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {str(k): _finite(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_finite(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _nested(params: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in params.items():
        *groups, last = name.split(".")
        place: Any = found
        for group in groups:
            place = place.setdefault(group, {}) if isinstance(place, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(place, dict) or last in place:
            return dict(params)  # `a` beside `a.b`: no application has both
        place[last] = value
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_md, cells))} |"


def _md(text: str) -> str:
    """Return a text of which Markdown and a page make nothing but text."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
