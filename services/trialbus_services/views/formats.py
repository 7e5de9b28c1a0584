"""Text formats of values, params, counts, reasons and durations, the same in all views.

`formats.js` has the formats that pages apply in the browser.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import zip_longest

from trialbus.messages import events

VALUE_DIGITS = 6  #: significant digits of results
LIVE_DIGITS = 5  #: significant digits of values that still change
PARAM_DIGITS = 3  #: significant digits of params on one line

FINISH_REASONS: dict[events.FinishReason, str] = {
    "exhausted": "all trials done",
    "timeout": "the time is over (study.timeout_s)",
    "stopped": "stopped",
    "converged": "converged",
    "failed": "failed",
}
"""Text for each reason of `study_finished`."""

_LARGEST_WHOLE = 1e15
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\].*?(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def format_value(value: object, digits: int = VALUE_DIGITS) -> str:
    """Format a value: None as empty text, a whole number in full, a float with `digits` digits.

    Example:
        >>> format_value(0.12345678), format_value(64), format_value(2e7)
        ('0.123457', '64', '20000000')
    """
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    # JavaScript does not tell 2e7 from 20000000 either.
    is_whole = value.is_integer() and abs(value) < _LARGEST_WHOLE
    return str(int(value)) if is_whole else f"{value:.{digits}g}"


def format_metrics(values: Sequence[float], metrics: Sequence[str]) -> list[str]:
    """Format the value of each objective with the metric's name.

    Args:
        values: Value of each objective.
        metrics: Name of each objective; `value` stands for a missing name.

    Example:
        >>> format_metrics([0.25, 3.0], ["loss"])
        ['loss 0.25', 'value 3']
    """
    pairs = zip_longest(values, metrics[: len(values)], fillvalue="value")
    return [f"{strip_control_characters(str(m))} {format_value(float(v))}" for v, m in pairs]


def format_params(params: Mapping[str, object]) -> str:
    """Format params on a line, with short numbers.

    Example:
        >>> format_params({"lr": 0.00123456, "width": 64})
        'lr=0.00123  width=64'
    """
    return strip_control_characters(
        "  ".join(f"{name}={format_value(v, PARAM_DIGITS)}" for name, v in params.items())
    )


def format_counts(counts: events.TrialCounts) -> str:
    """Format the number of finished trials by state."""
    return f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"


def format_done(n_done: int, n_trials: int | None) -> str:
    """Format how many trials are done, and of how many if they are not more than that.

    More are done where a study goes on with a lower `n_trials`, or another program added trials.

    Example:
        >>> format_done(6, 12), format_done(6, None), format_done(6, 2)
        ('6/12', '6/?', '6')
    """
    if n_trials is None:
        return f"{n_done}/?"
    return f"{n_done}/{n_trials}" if n_done <= n_trials else str(n_done)


def format_duration(duration: timedelta | None) -> str:
    """Format a duration in the two largest units, such as `1 h 20 min`, for reports."""
    if duration is None:
        return "unknown"
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [(days, "d"), (hour, "h"), (minute, "min"), (second, "s")]
    first = next((i for i, (amount, _) in enumerate(parts) if amount), 3)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount)


def format_clock(seconds: float) -> str:
    """Format a duration like a clock, for times that change while a study runs.

    Example:
        >>> format_clock(42.4), format_clock(3723)
        ('0:42', '1:02:03')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def strip_control_characters(text: str) -> str:
    r"""Remove the characters and sequences that would steer a terminal.

    Example:
        >>> strip_control_characters("\x1b[31mout of memory\x07")
        'out of memory'
    """
    return _CONTROL.sub("", text)
