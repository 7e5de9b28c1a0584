"""Retries: how often a trial is handed out again, by the cause that ended its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

FailureCause: TypeAlias = Literal[
    "exception", "killed", "out_of_memory", "lost", "timed_out", "silent", "preempted"
]
"""Why an attempt ended without being complete or pruned.

`exception`: the training raised, or exited with a code other than 0. `killed`: a signal that
nobody of trialbus sent ended the training. `out_of_memory`: the training was killed for the memory
it used. `lost`: the session of the trainer or the worker fell silent. `timed_out`: the attempt took
longer than `study.trial_timeout_s`. `silent`: no report came for `study.silence_s`. `preempted`:
the worker, or the engine that runs the worker, was told to stop.
"""

VerdictCause: TypeAlias = Literal[FailureCause, "missing_metric", "bad_value"]
"""Why a trial failed: why its last attempt ended, or what its reports lack.

`missing_metric`: no report gave an objective or a constraint the metric that it needs.
`bad_value`: an objective or a constraint is NaN or infinite, or `complete(values)` gave another
number of values than the study has objectives. The training ended well in both cases, and would
end the same again: such a trial is not handed out again.
"""

MAX_IDLE_ATTEMPTS = 10
"""Default of `study.retries.preempted`: attempts in a row that end without a new step."""


def find_limit(
    cause: FailureCause, retries: Mapping[FailureCause, int], max_retries: int
) -> tuple[int, str]:
    """Return how many attempts may end by a cause and be followed by another, and the key of it.

    Args:
        cause: The cause that ended an attempt.
        retries: `study.retries`.
        max_retries: `study.max_retries`, the number for `lost` and `killed`.

    Example:
        >>> find_limit("lost", {}, 3), find_limit("exception", {}, 3)
        ((3, 'study.max_retries=3'), (0, 'study.retries.exception=0'))
    """
    if cause in retries:
        limit = retries[cause]
    elif cause in ("lost", "killed"):
        return max_retries, f"study.max_retries={max_retries}"
    else:
        limit = MAX_IDLE_ATTEMPTS if cause == "preempted" else 0
    return limit, f"study.retries.{cause}={limit}"
