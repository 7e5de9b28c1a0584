"""Assignment: the `trial_assigned` event, from the worker's environment or the optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trialbus.errors import SpecError
from trialbus.messages import events
from trialbus.protocol.endpoint import ENDPOINT_VARIABLE
from trialbus.protocol.start_folder import FOLDER_VARIABLE
from trialbus.study.validation import is_mapping
from trialbus.study.values import restore_non_finite, separate_non_finite
from trialbus.trainer.launchers import OUTER_RANKS_VARIABLE, describe_outer_ranks

#: Environment variable of a trial's process, set by the worker: the `TrialAssigned` as JSON.
TRIAL_VARIABLE = "TRIALBUS_TRIAL"

#: Seconds of silence after which a trainer counts as lost.
TTL_S = 30.0

#: Key of the JSON beside the fields: numbers that JSON lacks, by `values.separate_non_finite`.
_NON_FINITE = "non_finite"


def make_environment(assigned: events.TrialAssigned, endpoint: str) -> dict[str, str]:
    """Return the environment variables with which `attach` in another process returns the trial."""
    data, non_finite = separate_non_finite(msgspec.to_builtins(assigned, enc_hook=_encode_scalar))
    if non_finite:
        data[_NON_FINITE] = non_finite
    return {
        ENDPOINT_VARIABLE: endpoint,
        TRIAL_VARIABLE: msgspec.json.encode(data).decode(),
        FOLDER_VARIABLE: str(Path.cwd()),
        OUTER_RANKS_VARIABLE: describe_outer_ranks(),
    }


def parse_assignment(text: str) -> events.TrialAssigned:
    """Parse the text of `$TRIALBUS_TRIAL` to an assignment.

    Raises:
        SpecError: The text is not JSON, or lacks a field without a default.
    """
    try:
        data: Any = msgspec.json.decode(text)
        if is_mapping(data):
            restore_non_finite(data, msgspec.convert(data.get(_NON_FINITE, {}), dict[str, str]))
        return msgspec.convert(data, events.TrialAssigned)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SpecError(f"${TRIAL_VARIABLE}", f"{text!r} is not a trial: {error}") from None


def _encode_scalar(value: Any) -> Any:
    """Return a scalar of NumPy, or of another library with NumPy's interface, as Python's own."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"{value!r} cannot be sent to another process (expected a plain value)")
