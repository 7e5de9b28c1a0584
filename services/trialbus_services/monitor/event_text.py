"""Text of events, for the list of events on the page."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from trialbus.messages import events
from trialbus_services.views.formats import LIVE_DIGITS, format_value

_LONGEST_TEXT = 300
_HIDDEN_FIELDS = frozenset(
    {"type", "study", "trial", "at", "session", "request", "submission", "elapsed_s", "answer"}
)


def describe_event(event: events.AnyEvent) -> dict[str, Any]:
    """Return the type, trial, time and text of an event for the list of events."""
    if isinstance(event, events.UnknownEvent):
        data = event.data
        trial, at, attempt = data.get("trial"), data.get("at"), data.get("attempt", 0)
    else:
        data = msgspec.to_builtins(event)
        trial, at, attempt = getattr(event, "trial", None), event.at, data.get("attempt", 0)
    fields = {name: value for name, value in data.items() if name not in _HIDDEN_FIELDS}
    if not attempt:
        fields.pop("attempt", None)
    if isinstance(event, events.StudySubmitted):
        fields = {"n_trials": event.spec.n_trials, "sampler": event.spec.sampler.type}
    text = "  ".join(
        f"{name} {_format_field(value)}"
        for name, value in fields.items()
        if value not in (None, "", [], {})
    )
    return {
        "type": event.type,
        "trial": trial if isinstance(trial, int) else None,
        "at": at if isinstance(at, float) and math.isfinite(at) else None,
        "text": text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …",
    }


def to_json_value(value: Any) -> Any:
    """Convert a value that JavaScript reads otherwise, such as NaN or a large integer, to text."""
    match value:
        case bool() | None | str():
            return value
        case int() if abs(value) < 1 << 53:
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            return str(value)


def _format_field(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={_format_field(v)}" for k, v in value.items())  # pyright: ignore[reportUnknownVariableType]
    return format_value(value, LIVE_DIGITS)
