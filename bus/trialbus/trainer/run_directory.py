"""Run directory: the folder for the files of a trial, which all attempts at the trial share."""

from __future__ import annotations

import os
from pathlib import Path

from trialbus.protocol.private_folder import make_private_folder
from trialbus.protocol.start_folder import resolve_from_start
from trialbus.study.folder_name import name_folder

#: Environment variable of a trial's process, set by the worker: the run directory of the trial.
RUN_DIRECTORY_VARIABLE = "TRIALBUS_RUN_DIR"

_DEFAULT = ".trialbus/runs"


def make_run_directory(study: str, trial: int) -> Path:
    """Make the run directory of a trial and return its absolute path.

    The worker names the folder in `$TRIALBUS_RUN_DIR`; without a worker the folder lies in
    `.trialbus/runs`, counted from where the process was when trialbus was imported.

    Args:
        study: Name of the study.
        trial: Number of the trial.

    Raises:
        OSError: The folder cannot be made.
    """
    default = Path(_DEFAULT) / name_folder(study) / str(trial)
    folder = resolve_from_start(os.environ.get(RUN_DIRECTORY_VARIABLE) or default)
    make_private_folder(folder)
    return folder
