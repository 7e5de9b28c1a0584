"""Errors carry data as attributes, beside the message."""

from __future__ import annotations

import pytest

import trialbus
from trialbus.errors import LogInUseError


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (trialbus.HubUnavailableError("ipc:///h", 2.5), {"endpoint": "ipc:///h", "waited_s": 2.5}),
        (trialbus.HubRefusedError(403, "no"), {"code": 403, "reason": "no"}),
        (LogInUseError("/log/events.db", "17"), {"path": "/log/events.db", "owner": "17"}),
        (trialbus.LogResetError("a1", "b2"), {"old": "a1", "new": "b2"}),
        (trialbus.OutboxFullError(64, 30.0), {"capacity": 64, "waited_s": 30.0}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_has_its_data_as_attributes_and_in_its_message(
    error: Exception, attributes: dict[str, object]
) -> None:
    assert {name: getattr(error, name) for name in attributes} == attributes
    for value in attributes.values():
        assert (f"{value:g}" if isinstance(value, float) else str(value)) in str(error)
