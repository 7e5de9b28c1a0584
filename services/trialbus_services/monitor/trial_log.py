"""The log of a trial, read where the worker wrote it."""

from __future__ import annotations

import os
from pathlib import Path

from trialbus_services.process import paths

_MOST = 64 << 10  # bytes at a time


def read_log(
    logs: Path, study: str, trial: int, attempt: int, after: int | None
) -> tuple[str, int]:
    """Return what a trial printed, and where that ends.

    The file's name is made here, of numbers and of a name without a slash: nothing that a browser
    sends is ever part of a path.

    Args:
        logs: Folder of the logs of trials.
        study: Name of the study.
        trial: Number of the trial.
        attempt: Which attempt at it.
        after: Where the text before ended; None for the last of it.

    Raises:
        FileNotFoundError: There is none on this machine.
    """
    path = paths.trial_log(logs, study, trial, attempt)
    # A training could have put a link there, to a file that only this process may read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _MOST) if after is None or not 0 <= after <= size else after
        file.seek(start)
        data = file.read(_MOST)
    return data.decode(errors="replace"), start + len(data)
