"""Job: runs one job of a sweep in this process, as the trial that a worker has given to it.

The application is read when this module is imported, so that a process which is forked for a job
has all that the application imports.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import trialbus
from trialbus_services.sweeper.application import VARIABLE, read_application
from trialbus_services.sweeper.search_space import format_job

if TYPE_CHECKING:
    import optuna

_APPLICATION = read_application(os.environ[VARIABLE])


def run_trial(trial: trialbus.Trial | optuna.Trial) -> Any:
    """Run the job of a trial, and return the objective values that the application returns.

    Args:
        trial: The trial; with `custom_search_space` one that is asked for its params.

    Raises:
        Exception: The error of the job.
    """
    if _APPLICATION.extend_space is not None:
        _suggest_params(trial)
    overrides = format_job(_APPLICATION.space, dict(trial.params))
    return _APPLICATION.run_job(trial.number, overrides)


def main() -> None:
    """Run the job of this process's trial."""
    with trialbus.attach() as trial:
        values = run_trial(_convert_trial(trial) if trial.define_by_run else trial)
        if values is not None:
            trial.complete(values)


def _suggest_params(trial: Any) -> None:
    """Ask for the params of the sweep, and then for those that `custom_search_space` adds."""
    from trialbus_services.optimizer.distributions import suggest_params

    assert _APPLICATION.extend_space is not None
    suggest_params(trial, _APPLICATION.space.params)
    _APPLICATION.extend_space(_APPLICATION.config, trial)


def _convert_trial(trial: trialbus.Trial) -> optuna.Trial:
    from trialbus_services.worker.objective import make_optuna_trial

    return make_optuna_trial(trial)


if __name__ == "__main__":
    main()
