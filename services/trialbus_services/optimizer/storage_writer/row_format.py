"""Changes as rows of the tables of an RDBStorage."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from optuna.distributions import distribution_to_json

from trialbus_services.optimizer.storage_writer.change_batch import (
    AttributeChanges,
    TrialChange,
    TrialRow,
)
from trialbus_services.optimizer.storage_writer.table_schema import encode, to_utc

#: By the names of tables.
Rows = defaultdict[str, list[dict[str, Any]]]


def format_trial_row(head: TrialRow) -> dict[str, Any]:
    """Return the columns of a trial's row that may change."""
    return {
        "state": head.state.name,
        "datetime_start": to_utc(head.start),
        "datetime_complete": to_utc(head.complete),
    }


def add_study(rows: Rows, study_id: int, attributes: AttributeChanges) -> None:
    """Add the rows of a study, by its id in the database."""
    key = {"study_id": study_id}
    rows["study_user_attributes"] += _attributes(key, attributes.user)
    rows["study_system_attributes"] += _attributes(key, attributes.system)


def add_trial(rows: Rows, trial_id: int, change: TrialChange) -> None:
    """Add the rows of a trial, by its id in the database, except the row in `trials`."""
    for name, (value, distribution) in change.params.items():
        rows["trial_params"].append(
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": float(value),
                "distribution_json": distribution_to_json(distribution),
            }
        )
    for objective, value in enumerate(change.head.values if change.head else ()):
        stored, kind = encode(value)
        rows["trial_values"].append(
            {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
        )
    curve = rows["trial_intermediate_values"]
    for step, value in change.steps.items():
        stored, kind = encode(value)
        curve.append(
            {
                "trial_id": trial_id,
                "step": int(step),
                "intermediate_value": stored,
                "intermediate_value_type": kind,
            }
        )
    key = {"trial_id": trial_id}
    rows["trial_user_attributes"] += _attributes(key, change.attributes.user)
    rows["trial_system_attributes"] += _attributes(key, change.attributes.system)


def _attributes(owner: dict[str, int], attributes: dict[str, str]) -> list[dict[str, Any]]:
    return [{**owner, "key": key, "value_json": value} for key, value in attributes.items()]
