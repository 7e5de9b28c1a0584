"""Exports of a study: CSV, Parquet, JSON, YAML and Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from optuna.trial import FrozenTrial

from trialbus.study.search_space import CategoricalParam
from trialbus.study.values import separate_non_finite
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.optimizer.recorded_spec import read_spec
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import Failure, StudySummary, get_state
from trialbus_services.reporter.table import Table
from trialbus_services.views.formats import format_duration, format_value

#: Version of the format of `study.json`; it changes with every incompatible change.
FORMAT = 1
_MOST_BEST = 10
_MOST_FAILURES = 10
_MOST_NUMBERS = 20


def to_csv(table: Table) -> str:
    """Return the table of trials as CSV: text in quotes, None as an empty cell.

    Numbers are exact, so that `float` gives the same number back; lists and mappings are JSON.
    """
    file = io.StringIO(newline="")
    csv.writer(file).writerow(table.header)
    for row in table.rows:
        file.write(",".join(map(_format_cell, row)) + "\r\n")
    return file.getvalue()


def to_parquet(table: Table) -> bytes:
    """Return the table of trials as Parquet.

    A column of several types, such as a categorical param of numbers and words, is written as
    text; a column with mappings, or with unlike lists, as JSON.

    Raises:
        ImportError: The package pyarrow is not installed.
    """
    # Neither module has type stubs.
    pa: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")

    columns: dict[str, Any] = {}
    for name, values in table.columns.items():
        types: set[type] = {type(value) for value in values if value is not None}
        if types & {dict, list} and not _is_list_column(pa, values):
            columns[name] = [None if v is None else _format_json(v) for v in values]
        elif len(types) > 1 and not types <= {int, float}:
            columns[name] = [None if v is None else str(v) for v in values]
        else:
            columns[name] = values
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def _is_list_column(pa: Any, values: Sequence[Any]) -> bool:
    """Return whether values are lists, or None, all of one type of Parquet."""
    if not all(isinstance(value, list | None) for value in values):
        return False
    try:
        pa.array(values)
    except (ValueError, TypeError):
        return False
    return True


def to_json(study: Snapshot, summary: StudySummary) -> str:
    """Return a study with all trials as a JSON object.

    Durations are in seconds, times are ISO 8601. JSON has no numbers for what is not finite: such
    values are the strings `NaN`, `Infinity` and `-Infinity`, and `non_finite` has the JSON Pointer
    of each, which tells them from text. Params are as in the storage: of a labelled choice the
    label, whose value is in `choices`.
    """
    spec = read_spec(study.user_attrs)
    choices = {
        name: param.choices
        for name, param in ({} if spec is None else spec.space).items()
        if isinstance(param, CategoricalParam) and param.is_labelled
    }
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
        "choices": choices,
        "config": summary.config,
        "origin": summary.origin,
        "user_attrs": mask_secrets(study.user_attrs),
        "trials": [_describe_trial(trial) for trial in study.recorded],
    }
    data, non_finite = separate_non_finite(document, placeholder=str)
    data["non_finite"] = non_finite
    return json.dumps(data, ensure_ascii=False, default=str) + "\n"


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
    lines += _format_failures(summary.failures)
    return "\n".join([*lines, ""])


def _format_failures(failures: Sequence[Failure]) -> list[str]:
    """Return the lines about the failed trials, by cause and reason; empty without any."""
    if not failures:
        return []
    head = ["failed trials", "cause", "reason"]
    lines = ["", _format_row(head), _format_row(["---"] * len(head))]
    for failure in failures[:_MOST_FAILURES]:
        numbers = ", ".join(map(str, failure.trials[:_MOST_NUMBERS]))
        n_more = len(failure.trials) - _MOST_NUMBERS
        more = f" and {n_more} more" if n_more > 0 else ""
        lines.append(_format_row([f"{numbers}{more}", failure.cause or "", failure.reason]))
    n_left = sum(len(failure.trials) for failure in failures[_MOST_FAILURES:])
    if n_left:
        lines += ["", f"{n_left} more failed, each kind less often."]
    return lines


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


def _format_cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case list() | tuple() | dict():
            text = _format_json(value)
        case str():
            text = value
        case _:
            return str(value)
    return '"' + text.replace('"', '""') + '"'


def _format_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape_markdown, cells))} |"


def _escape_markdown(text: str) -> str:
    """Escape the characters of a text that Markdown or HTML would interpret."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
