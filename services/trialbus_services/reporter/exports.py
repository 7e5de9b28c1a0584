"""Exports of a study: CSV, Parquet, JSON, YAML and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import yaml
from optuna.trial import FrozenTrial

from trialbus_services.config.secrets import mask_secrets
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import StudySummary, get_state
from trialbus_services.reporter.table import Table
from trialbus_services.views.formats import format_duration, format_value

#: Version of the format of `study.json`; it changes with every incompatible change.
FORMAT = 1
_MOST_BEST = 10


def to_csv(table: Table) -> str:
    """Return the table of trials as CSV; None is an empty cell."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows([table.header, *table.rows])
    return file.getvalue()


def to_parquet(table: Table) -> bytes:
    """Return the table of trials as Parquet.

    A column of several types, such as a categorical param of numbers and words, is written as
    text.

    Raises:
        ImportError: The package pyarrow is not installed.
    """
    # Neither module has type stubs.
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


def to_json(study: Snapshot, summary: StudySummary) -> str:
    """Return a study with all trials as a JSON object.

    Durations are in seconds, times are ISO 8601. JSON has no numbers for what is not finite: such
    values are the strings `NaN`, `Infinity` and `-Infinity`.
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": summary.name,
        "objectives": [
            {"metric": metric, "direction": direction}
            for metric, direction in zip(summary.metrics, summary.directions, strict=True)
        ],
        "counts": summary.counts,
        "wall_s": summary.wall_time.total_seconds() if summary.wall_time is not None else None,
        "compute_s": summary.compute_time.total_seconds(),
        "saved_by_pruning": {
            "share": summary.savings.share,
            "s": summary.savings.time.total_seconds(),
        }
        if summary.savings
        else None,
        "best": [trial.number for trial in summary.best],
        "config": summary.config,
        "origin": summary.origin,
        "user_attrs": mask_secrets(study.user_attrs),
        "trials": [_describe_trial(trial) for trial in study.recorded],
    }
    return json.dumps(_encode_non_finite(document), ensure_ascii=False, default=str) + "\n"


def to_params_yaml(trial: FrozenTrial, summary: StudySummary, folder: str) -> str:
    """Return a trial's params as a config of Hydra that overrides an application's.

    Dots in a name make groups, as they do for a worker that hands params to a Hydra application.

    Args:
        trial: The trial.
        summary: Summary of the trial's study.
        folder: Name of the folder that the file will be in.
    """
    values = ", ".join(
        f"{metric}={format_value(value)}"
        for metric, value in zip(summary.metrics, trial.values, strict=True)
    )
    role = (
        "the best" if len(summary.best) == 1 else f"one of {len(summary.best)} on the Pareto front"
    )
    comment = f"trial {trial.number} of {summary.name}, {role}: {values}"
    return (
        "# @package _global_\n"
        f"# {' '.join(comment.split())}\n"
        f"# python train.py --config-dir <the folder above this one> +{folder}=best_params\n"
        + yaml.safe_dump(_nest_params(trial.params), sort_keys=False, allow_unicode=True)
    )


def to_markdown(summary: StudySummary, importances: Mapping[str, float]) -> str:
    """Return the summary of a study as Markdown, for a pull request."""
    goals = (
        f"{d} {_escape_markdown(m)}"
        for m, d in zip(summary.metrics, summary.directions, strict=True)
    )
    counts = ", ".join(f"{n} {state}" for state, n in summary.counts.items()) or "no trials"
    lines = [f"## Study {_escape_markdown(summary.name)}", "", f"{', '.join(goals)} · {counts}", ""]
    if summary.best:
        params = list(dict.fromkeys(name for trial in summary.best for name in trial.params))
        head = ["trial", *summary.metrics, *params]
        lines += [_format_row(head), _format_row(["---"] * len(head))]
        for trial in summary.best[:_MOST_BEST]:
            cells = [trial.number, *trial.values, *(trial.params.get(name) for name in params)]
            lines.append(_format_row([format_value(cell) for cell in cells]))
        if len(summary.best) > _MOST_BEST:
            lines += ["", f"{len(summary.best) - _MOST_BEST} more are on the Pareto front."]
    else:
        lines.append("No trial is complete and feasible.")
    lines += [
        "",
        (
            f"Wall time {format_duration(summary.wall_time)}, "
            f"compute time {format_duration(summary.compute_time)}"
        ),
    ]
    if summary.savings:
        percent = round(100 * summary.savings.share)
        lines[-1] += (
            f"; pruning saved {format_duration(summary.savings.time)} ({percent}% of the steps)"
        )
    lines[-1] += "."
    if importances:
        most = [
            f"{_escape_markdown(name)} {share:.0%}" for name, share in list(importances.items())[:5]
        ]
        lines += ["", f"Params by importance: {', '.join(most)}."]
    for failure in summary.failures[:3]:
        lines += ["", f"{len(failure.trials)} failed: {_escape_markdown(failure.reason)}"]
    return "\n".join([*lines, ""])


def _describe_trial(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": get_state(trial),
        "values": trial.values,
        "params": trial.params,
        "intermediate_values": trial.intermediate_values,
        "constraints": trial.constraints,
        "started": trial.datetime_start.isoformat() if trial.datetime_start else None,
        "ended": trial.datetime_complete.isoformat() if trial.datetime_complete else None,
        "user_attrs": trial.user_attrs,
    }


def _encode_non_finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {str(k): _encode_non_finite(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_encode_non_finite(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _nest_params(params: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in params.items():
        *groups, last = name.split(".")
        group_config: Any = config
        for group in groups:
            if isinstance(group_config, dict):
                group_config = cast(dict[str, Any], group_config).setdefault(group, {})
        if not isinstance(group_config, dict) or last in group_config:
            return dict(params)  # `a` beside `a.b`: no application has both
        group_config[last] = value
    return config


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape_markdown, cells))} |"


def _escape_markdown(text: str) -> str:
    """Escape the characters of a text that Markdown or HTML would interpret."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
