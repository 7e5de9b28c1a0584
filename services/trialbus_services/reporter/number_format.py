"""Numbers and durations as people read them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any


def number(value: Any) -> str:
    """Return a value with six significant digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def duration(value: timedelta | None) -> str:
    """Return a duration in its two largest units, such as `1 h 20 min`."""
    if value is None:
        return "unknown"
    seconds = value.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [(days, "d"), (hour, "h"), (minute, "min"), (second, "s")]
    first = next((i for i, (amount, _) in enumerate(parts) if amount), 3)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount)
