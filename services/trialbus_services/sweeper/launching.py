"""Launching: jobs of a sweep through the user's own launcher of Hydra, a batch at a time."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict, read_write

import trialbus
from trialbus.errors import HubUnavailableError, StudyEndedError
from trialbus.messages import events
from trialbus.protocol.security import locate_keys
from trialbus.trainer.assignment import TRIAL_VARIABLE, make_environment
from trialbus.trainer.requester import RequestedTrial, TrialRequester
from trialbus_services.launcher.launcher import Follow
from trialbus_services.sweeper.application import Application
from trialbus_services.sweeper.search_space import format_job
from trialbus_services.worker.command_line import quote_for_hydra

_POLL_S = 0.5


class TrialTask:
    """The function under `@hydra.main`, within the trial that the job's environment names.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable[[DictConfig], Any]) -> None:
        self._function = function

    def __call__(self, config: DictConfig) -> Any:
        """Call the function, and end the trial as the function has ended."""
        if not os.environ.get(TRIAL_VARIABLE):
            return self._function(config)
        with trialbus.attach() as trial:
            values = self._function(config)
            if values is not None:
                trial.complete(values)
            return values
        return None  # pruned


class StudyThread:
    """Runs a study in a thread, while this thread runs its jobs.

    Args:
        launch: Runs the study, with a function that is called with each event and every moment.
    """

    def __init__(self, launch: Callable[[Follow], events.StudyFinished]) -> None:
        self._launch = launch
        self._is_started = threading.Event()
        self._is_stopped = threading.Event()
        self._end: events.StudyFinished | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="study")

    def __enter__(self) -> StudyThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped.set()
        self._thread.join()

    @property
    def is_running(self) -> bool:
        """Whether the study has not ended."""
        return self._thread.is_alive()

    def wait_started(self) -> bool:
        """Wait until the optimizer has accepted the study; False if the study has ended before."""
        while not self._is_started.wait(_POLL_S):
            if not self.is_running:
                return False
        return True

    def wait(self) -> events.StudyFinished:
        """Wait for the end of the study and return it.

        Raises:
            Exception: What ended the launch of the study.
        """
        while self.is_running:
            self._thread.join(_POLL_S)
        if self._error is not None:
            raise self._error
        assert self._end is not None
        return self._end

    def _run(self) -> None:
        try:
            self._end = self._launch(self._follow)
        except BaseException as error:  # noqa: BLE001 - raised by `wait`
            self._error = error

    def _follow(self, event: events.AnyEvent | None) -> None:
        if self._is_stopped.is_set():
            raise KeyboardInterrupt
        if isinstance(event, events.StudyStarted):
            self._is_started.set()


def make_launcher(application: Application) -> Launcher:
    """Return the launcher that the application's config names, for jobs that are trials.

    Raises:
        Exception: The launcher is not installed, or its config is wrong.
    """
    # Hydra hides overrides of its own keys from the list of jobs, where the keys exist already.
    names = [*make_environment(events.TrialAssigned(trial=0, params={}), ""), *locate_keys()]
    config = copy.deepcopy(application.config)
    with read_write(config), open_dict(config):
        config.hydra.overrides.hydra += [f"++hydra.job.env_set.{name}=''" for name in names]
    return Plugins.instance().instantiate_launcher(
        config=config,
        hydra_context=application.hydra_context,
        task_function=TrialTask(application.task_function),
    )


def run_batches(
    study: StudyThread,
    application: Application,
    launcher: Launcher,
    requester: Callable[[], TrialRequester],
    n_jobs: int,
) -> None:
    """Run the jobs of a study through a launcher until the study has ended.

    Args:
        study: The study, which has been launched.
        application: The application.
        launcher: Launcher of Hydra.
        requester: Opens a requester of the study's trials.
        n_jobs: Number of jobs of a batch.
    """
    if not study.wait_started():
        return
    with requester() as trials:
        while study.is_running:
            try:
                batch = trials.request(n_jobs, timeout_s=_POLL_S)
            except StudyEndedError:
                return
            except HubUnavailableError:  # restarted, or ended with the study
                continue
            for run in _split_runs(batch):
                _launch(run, application, launcher)


def _launch(trials: Sequence[RequestedTrial], application: Application, launcher: Launcher) -> None:
    """Run a batch of jobs, and end the trials of those that have not ended their own."""
    jobs = [
        [
            *format_job(application.space, trial.params),
            *(
                f"hydra.job.env_set.{name}={quote_for_hydra(value)}"
                for name, value in trial.environment.items()
            ),
        ]
        for trial in trials
    ]
    returns: Sequence[JobReturn] = launcher.launch(jobs, initial_job_idx=trials[0].number)
    for trial, job in zip(trials, returns, strict=True):
        if job.status == JobStatus.COMPLETED:
            trial.complete()  # counts only if the job's process has lost its own verdict
            continue
        try:
            _ = job.return_value
        except Exception as error:  # noqa: BLE001 - of the job
            trial.end_by(error)


def _split_runs(batch: Sequence[RequestedTrial]) -> list[list[RequestedTrial]]:
    """Return trials in runs of consecutive numbers, since a launcher numbers the jobs of a batch.

    A batch is a single run, unless a trial is run again.
    """
    runs: list[list[RequestedTrial]] = []
    for trial in sorted(batch, key=lambda trial: trial.number):
        if runs and runs[-1][-1].number + 1 == trial.number:
            runs[-1].append(trial)
        else:
            runs.append([trial])
    return runs
