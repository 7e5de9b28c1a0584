"""The table of all trials, for the page and for files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trialbus_services.optimizer.attributes import (
    ATTEMPT,
    CAUSE,
    CAUSES,
    ERROR,
    PREFIX,
    SLOT,
    WORKER,
)
from trialbus_services.reporter.snapshot import (
    Snapshot,
    compute_run_time,
    get_curve,
    is_feasible,
)
from trialbus_services.reporter.study_summary import get_state
from trialbus_services.views.notes import get_last_line

#: Columns behind the params, which are there if there is something in them.
_LAST_COLUMNS = frozenset(
    {
        "attempt",
        "cause",
        "earlier causes",
        "error",
        "feasible",
        "seconds",
        "slot",
        "started",
        "steps",
        "worker",
    }
)


@dataclass(frozen=True)
class Table:
    """Columns by name; all have a value, or None, for each trial."""

    columns: dict[str, list[Any]]

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """A tuple for each trial."""
        return list(zip(*self.columns.values(), strict=True))


def tabulate(study: Snapshot) -> Table:
    """Return the table of a study's trials.

    A param that is called like another column gets `params.` before its name, and a user attribute
    of the trials `user_attrs.`. Columns about constraints and about where a trial ran are there
    only if there is something in them.

    Args:
        study: The study.
    """
    trials = study.recorded
    table: dict[str, list[Any]] = {
        "trial": [trial.number for trial in trials],
        "state": [get_state(trial) for trial in trials],
    }
    for i, metric in enumerate(study.metrics):
        name = metric if metric not in table else f"{metric} ({i})"
        table[name] = [trial.values[i] if trial.values else None for trial in trials]
    reserved = {*table, *_LAST_COLUMNS}
    # In the order in which the search space names them.
    params = {name: None for trial in trials for name in trial.params}
    for param in params:
        name = f"params.{param}" if param in reserved else param
        table[name] = [trial.params.get(param) for trial in trials]
    last: dict[str, list[Any]] = {
        "feasible": [is_feasible(trial) if trial.constraints else None for trial in trials],
        "steps": [len(get_curve(trial)) or None for trial in trials],
        "seconds": [
            round(time.total_seconds(), 3) if time else None
            for time in map(compute_run_time, trials)
        ],
        "started": [_format_time(trial.datetime_start) for trial in trials],
        "worker": [trial.user_attrs.get(WORKER) for trial in trials],
        "slot": [trial.user_attrs.get(SLOT) for trial in trials],
        "attempt": [trial.user_attrs.get(ATTEMPT) for trial in trials],
        "cause": [trial.user_attrs.get(CAUSE) for trial in trials],
        "error": [
            get_last_line(trial.user_attrs[ERROR]) if trial.user_attrs.get(ERROR) else None
            for trial in trials
        ],
        "earlier causes": [" ".join(trial.user_attrs.get(CAUSES, [])) or None for trial in trials],
    }
    table |= {name: v for name, v in last.items() if any(x is not None for x in v)}
    attributes = {key: None for trial in trials for key in trial.user_attrs}
    for key in attributes:
        if not key.startswith(PREFIX):
            name = f"user_attrs.{key}" if key in {*table, *_LAST_COLUMNS} else key
            table[name] = [trial.user_attrs.get(key) for trial in trials]
    return Table(table)


def _format_time(moment: datetime | None) -> str | None:
    return moment.isoformat(sep=" ", timespec="seconds") if moment else None
