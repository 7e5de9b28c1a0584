"""Row format: changes as rows of the tables of an RDBStorage."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from optuna.distributions import distribution_to_json

from trialbus_services.optimizer.storage_writer.change_batch import (
    AttributeChanges,
    TrialChange,
    TrialRow,
)
from trialbus_services.optimizer.storage_writer.table_schema import encode_value, to_utc

#: Rows by the name of their table.
Rows = defaultdict[str, list[dict[str, Any]]]


def format_trial_row(row: TrialRow) -> dict[str, Any]:
    """Return the columns of a row in `trials` that may change."""
    return {
        "state": row.state.name,
        "datetime_start": to_utc(row.start),
        "datetime_complete": to_utc(row.complete),
    }


def add_study_rows(rows: Rows, study_id: int, attributes: AttributeChanges) -> None:
    """Add the attributes of a study to the rows; `study_id` is the id in the database."""
    key = {"study_id": study_id}
    rows["study_user_attributes"] += _format_attributes(key, attributes.user)
    rows["study_system_attributes"] += _format_attributes(key, attributes.system)


def add_trial_rows(rows: Rows, trial_id: int, change: TrialChange) -> None:
    """Add the change of a trial to the rows, except the row in `trials`.

    Args:
        rows: Rows by table.
        trial_id: Id of the trial in the database.
        change: The change.
    """
    for name, (value, distribution) in change.params.items():
        rows["trial_params"].append(
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": float(value),
                "distribution_json": distribution_to_json(distribution),
            }
        )
    for objective, value in enumerate(change.row.values if change.row else ()):
        number, value_type = encode_value(value)
        rows["trial_values"].append(
            {
                "trial_id": trial_id,
                "objective": objective,
                "value": number,
                "value_type": value_type,
            }
        )
    curve = rows["trial_intermediate_values"]
    for step, value in change.steps.items():
        number, value_type = encode_value(value)
        curve.append(
            {
                "trial_id": trial_id,
                "step": int(step),
                "intermediate_value": number,
                "intermediate_value_type": value_type,
            }
        )
    key = {"trial_id": trial_id}
    rows["trial_user_attributes"] += _format_attributes(key, change.attributes.user)
    rows["trial_system_attributes"] += _format_attributes(key, change.attributes.system)


def _format_attributes(owner: dict[str, int], attributes: dict[str, str]) -> list[dict[str, Any]]:
    return [{**owner, "key": key, "value_json": value} for key, value in attributes.items()]
