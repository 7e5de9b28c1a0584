"""Reads the log of a trial from the file that a worker on this machine writes."""

from __future__ import annotations

import os
from pathlib import Path

from trialbus_services.process import paths

_MAX_BYTES = 64 << 10  # read at a time


def read_log(
    logs: Path, study: str, trial: int, attempt: int, after: int | None
) -> tuple[str, int]:
    """Read a part of an attempt's log; return the text and the position after the text.

    The path is built of numbers and of a file name derived from the study's name: no text that a
    browser sends is ever part of a path.

    Args:
        logs: Folder with the logs of trials.
        study: Name of the study.
        trial: Number of the trial.
        attempt: Number of the attempt, from 0.
        after: Position at which to go on, in bytes; None reads the end of the log.

    Raises:
        FileNotFoundError: The log is not on this machine.
    """
    path = paths.locate_trial_log(logs, study, trial, attempt)
    # A training could have put a link there, to a file that only this user may read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _MAX_BYTES) if after is None or not 0 <= after <= size else after
        file.seek(start)
        data = file.read(_MAX_BYTES)
    return data.decode(errors="replace"), start + len(data)
