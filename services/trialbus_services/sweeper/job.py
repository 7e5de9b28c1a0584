"""Job: runs one job of a sweep in this process, as the trial that a worker has given to it.

The application is read when this module is imported, so that a process which is forked for a job
has all that the application imports.
"""

from __future__ import annotations

import os
from typing import Any

import trialbus
from trialbus_services.sweeper.application import VARIABLE, read_application
from trialbus_services.sweeper.search_space import format_job

_APPLICATION = read_application(os.environ[VARIABLE])


def run_trial(trial: trialbus.Trial) -> Any:
    """Run the job of a trial, and return the objective values that the application returns.

    Raises:
        Exception: The error of the job.
    """
    overrides = format_job(_APPLICATION.space, dict(trial.params))
    return _APPLICATION.run_job(trial.number, overrides)


def main() -> None:
    """Run the job of this process's trial."""
    with trialbus.attach() as trial:
        values = run_trial(trial)
        if values is not None:
            trial.complete(values)


if __name__ == "__main__":
    main()
