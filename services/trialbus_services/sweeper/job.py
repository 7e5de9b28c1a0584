"""Job: runs one job of a sweep in this process, `python -m trialbus_services.sweeper.job FILE`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import trialbus
from trialbus_services.worker.objective import make_optuna_trial


def main(file: str) -> None:
    """Run the job of this process's trial.

    Args:
        file: File of the application.
    """
    application = pickle.loads(Path(file).read_bytes())  # noqa: S301 - of this user alone
    with trialbus.attach() as trial:
        values = application(make_optuna_trial(trial) if trial.define_by_run else trial)
        if values is not None:
            trial.complete(values)


if __name__ == "__main__":
    main(sys.argv[1])
