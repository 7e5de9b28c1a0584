"""Recorded specification: the `StudySpec` that a study in an Optuna storage was run with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import SPEC


def read_spec(user_attrs: Mapping[str, Any]) -> StudySpec | None:
    """Return the specification in the user attributes of a study.

    None for a study of plain Optuna, and for a specification that this version refuses.
    """
    data = user_attrs.get(SPEC)
    try:
        return msgspec.convert(data, StudySpec) if data else None
    except msgspec.ValidationError:
        return None


def decode_recorded(user_attrs: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a training got for the params of a trial in the storage.

    Args:
        user_attrs: User attributes of the study.
        stored: Params of the trial as Optuna has them, with labels in place of labelled choices.
    """
    spec = read_spec(user_attrs)
    return dict(stored) if spec is None else spec.decode_params(stored)
