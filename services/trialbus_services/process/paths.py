"""Paths of the files of studies and trials: every folder that is named after a study.

Only the folder of checkpoints is named elsewhere, by the trainer, with the same rule.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trialbus.errors import SpecError
from trialbus.study.folder_name import name_folder

_PROBE_BYTES = 4096
_EXPECTED = "(expected a folder that this user may write)"


def make_directory(path: Path, key: str) -> None:
    """Make a folder that a command will write to, with parent folders.

    Args:
        path: Path of the folder.
        key: Key of the config, or flag of the command line, that gives the path.

    Raises:
        SpecError: The folder cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(key, f"{str(path)!r}: {error.strerror} {_EXPECTED}") from None
    check_writable(path, key)


def check_writable(path: Path, key: str) -> None:
    """Check that a folder can hold files, or can be made and hold files then.

    A temporary file is written to the folder, or to the first existing folder above, and removed.

    Args:
        path: Path of the folder.
        key: Key of the config, or flag of the command line, that gives the path.

    Raises:
        SpecError: No file can be written, for example in a read-only folder or on a full disk.
    """
    absolute = path.absolute()
    existing = next(folder for folder in (absolute, *absolute.parents) if os.path.lexists(folder))
    try:
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        location = "" if existing == absolute else f" in {str(existing)!r}"
        raise SpecError(key, f"{str(path)!r}: {error.strerror}{location} {_EXPECTED}") from None


def locate_trial_log(logs: Path, study: str, trial: int, attempt: int) -> Path:
    """Return the file that holds the output of an attempt's training.

    Args:
        logs: Folder of the logs of trials.
        study: Name of the study.
        trial: Number of the trial.
        attempt: Number of the attempt.
    """
    return logs / name_folder(study) / f"{trial:d}-{attempt:d}.log"


def locate_run_directory(runs: Path, study: str, trial: int) -> Path:
    """Return the absolute path of a trial's run directory, which all attempts share."""
    return (runs / name_folder(study) / f"{trial:d}").absolute()


def locate_report_directory(reports: Path, study: str) -> Path:
    """Return the folder of a study's report."""
    return reports / name_folder(study)


def locate_results_file(directory: Path, study: str) -> Path:
    """Return the file in which a runner writes all trials of a study."""
    return directory / f"{name_folder(study)}_results.json"


def locate_results_directory(directory: Path, study: str) -> Path:
    """Return the folder in which a runner writes the best params and config of a study."""
    return directory / name_folder(study)
