"""An event as one line of text."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from trialbus.messages import events

_LONGEST = 300
_LEFT_OUT = frozenset(
    {"type", "study", "trial", "at", "session", "request", "submission", "elapsed_s", "answer"}
)


def described(event: events.AnyEvent) -> dict[str, Any]:
    """Return what a list of events shows of one."""
    if isinstance(event, events.UnknownEvent):
        data = event.data
        trial, at, attempt = data.get("trial"), data.get("at"), data.get("attempt", 0)
    else:
        data = msgspec.to_builtins(event)
        trial, at, attempt = getattr(event, "trial", None), event.at, data.get("attempt", 0)
    fields = {name: value for name, value in data.items() if name not in _LEFT_OUT}
    if not attempt:
        fields.pop("attempt", None)
    if isinstance(event, events.StudySubmitted):
        fields = {"n_trials": event.spec.n_trials, "sampler": event.spec.sampler.type}
    text = "  ".join(
        f"{name} {_text(value)}"
        for name, value in fields.items()
        if value not in (None, "", [], {})
    )
    return {
        "type": event.type,
        "trial": trial if isinstance(trial, int) else None,
        "at": at if isinstance(at, float) and math.isfinite(at) else None,
        "text": text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …",
    }


def plain(value: Any) -> Any:
    """Return a value as JSON and JavaScript hold it, else as text: NaN, and large integers."""
    match value:
        case bool() | None | str():
            return value
        case int() if abs(value) < 1 << 53:
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            return str(value)


def _text(value: Any) -> str:
    match value:
        case float():
            return f"{value:.5g}"
        case dict():
            return " ".join(f"{k}={_text(v)}" for k, v in value.items())  # pyright: ignore[reportUnknownVariableType]
        case _:
            return str(value)
