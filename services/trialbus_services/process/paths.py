"""Paths of the files of studies and trials: every folder that is named after a study.

Checkpoints are the one exception: the trainer names their folder, by the same rule.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from trialbus.errors import SpecError
from trialbus.study.folder_name import name_folder


def make_directory(path: Path, key: str) -> None:
    """Make a folder that a command will write to, with the folders above it.

    Args:
        path: Path of the folder.
        key: Key of the config, or flag of the command line, that gives the path.

    Raises:
        SpecError: The folder cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SpecError(
            key, f"{str(path)!r}: {error.strerror} (expected a folder that this user may write)"
        ) from None


def trial_log(logs: Path, study: str, trial: int, attempt: int) -> Path:
    """Return the file that holds the output of an attempt's training.

    Args:
        logs: Folder of the logs of trials.
        study: Name of the study.
        trial: Number of the trial.
        attempt: Number of the attempt.
    """
    return logs / name_folder(study) / f"{trial:d}-{attempt:d}.log"


def run_directory(runs: Path, study: str, trial: int) -> Path:
    """Return the absolute path of a trial's run directory, which all its attempts share."""
    return (runs / name_folder(study) / f"{trial:d}").absolute()


def report_directory(reports: Path, study: str) -> Path:
    """Return the folder of a study's report."""
    return reports / name_folder(study)


def results_file(directory: Path, study: str) -> Path:
    """Return the file in which a runner writes all trials of a study."""
    return directory / f"{name_folder(study)}_results.json"


def results_directory(directory: Path, study: str) -> Path:
    """Return the folder in which a runner writes the best params and config of a study."""
    return directory / name_folder(study)
