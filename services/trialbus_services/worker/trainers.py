"""Trainers of a worker: the protocol, and the trainer that starts a program for each trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trialbus.messages.events import EvaluationComplete, TrialAssigned
from trialbus.protocol.private_folder import make_private_folder
from trialbus_services.config.metric_source import MetricSource
from trialbus_services.config.settings import ParamsAs, Switches
from trialbus_services.process import paths
from trialbus_services.process.search_path import build_search_path
from trialbus_services.worker.collectors.collector import Collector
from trialbus_services.worker.command_line import (
    PARAMS_FILE,
    build_environment,
    collect_texts,
    collect_values,
    fill_command,
)
from trialbus_services.worker.placeholders import (
    RUN_DIRECTORY,
    fill_placeholders,
    make_absolute,
)
from trialbus_services.worker.training_process import (
    OnStart,
    TrainingExit,
    ignore_start,
    run_training,
)


class Trainer(Protocol):
    """Runs the training of each trial in a separate process."""

    async def start(self) -> None:
        """Prepare for trials.

        Raises:
            SpecError: The trainer cannot run any trial.
        """

    async def run(
        self,
        trial: TrialAssigned,
        env: Mapping[str, str],
        log: Path,
        on_start: OnStart = ignore_start,
    ) -> TrainingExit:
        """Run a trial until the training has ended; a cancellation ends the training first.

        Args:
            trial: The trial.
            env: Environment variables by which the training finds the trial.
            log: File to which the output of the training is appended.
            on_start: Called with the process id of the training.

        Raises:
            OSError: No process could be started, or a file could not be written.
            ValueError: The params cannot be given to the program.
        """
        ...

    def open_collector(
        self, trial: TrialAssigned, log: Path, publish: Callable[[EvaluationComplete], object]
    ) -> Collector | None:
        """Return the collector of a trial's metrics; None if the training reports them itself.

        Args:
            trial: The trial, before `run`.
            log: File that will hold the output of the training.
            publish: Publishes an evaluation.
        """
        ...

    async def close(self) -> None:
        """End the processes that `start` began."""


@dataclass(frozen=True, kw_only=True)
class CommandTrainer:
    """Runs a program of the worker's config for each trial; the bus never chooses the program."""

    command: list[str]
    """Program and its arguments."""
    runs: Path
    """Folder of the run directories, `<study>/<trial>`."""
    params_as: ParamsAs = "environment"
    """How params reach the program."""
    switches: Switches = field(default_factory=dict[str, Any])
    """Options without a value, by param."""
    metrics: list[MetricSource] = field(default_factory=list[MetricSource])
    """Where the program leaves its metrics; empty if it reports them itself."""
    env: dict[str, str] = field(default_factory=dict[str, str])
    """Environment variables that are added to the worker's."""
    cwd: str | None = None
    """Working directory of the program, with placeholders; None for the worker's."""
    grace_s: float = 5.0
    """Seconds between SIGTERM and SIGKILL when a training is ended."""

    async def start(self) -> None:
        """Return at once: a program needs no preparation."""

    async def run(
        self,
        trial: TrialAssigned,
        env: Mapping[str, str],
        log: Path,
        on_start: OnStart = ignore_start,
    ) -> TrainingExit:
        """Run the program for a trial, see `Trainer.run`."""
        run_directory = self._locate_run_directory(trial)
        make_private_folder(run_directory)
        cwd = self._locate_cwd(trial)
        _check_folder(cwd)
        by_environment = self.params_as == "environment"
        params = build_environment(collect_values(trial)) if by_environment else {}
        command = fill_command(
            self.command, self.params_as, trial, run_directory, switches=self.switches
        )
        if self._runs_in_run_directory:
            command = [make_absolute(argument) for argument in command]
        return await run_training(
            command,
            env={
                **os.environ,
                "PATH": build_search_path(os.environ),
                **self.env,
                **params,
                **env,
            },
            cwd=cwd,
            log=log,
            grace_s=self.grace_s,
            on_start=on_start,
        )

    def open_collector(
        self, trial: TrialAssigned, log: Path, publish: Callable[[EvaluationComplete], object]
    ) -> Collector | None:
        """Return the collector of a trial's metrics, see `Trainer.open_collector`."""
        if not self.metrics:
            return None
        folder = Path(self._locate_cwd(trial) or ".")
        places = [
            folder / self._fill(source.file or source.tensorboard or "", trial)
            if source.stdout is None
            else log
            for source in self.metrics
        ]
        return Collector(trial, self.metrics, places, publish)

    async def close(self) -> None:
        """Return at once: every training has ended with the trial."""

    @property
    def _runs_in_run_directory(self) -> bool:
        return self.cwd is not None and RUN_DIRECTORY in self.cwd

    def _locate_run_directory(self, trial: TrialAssigned) -> Path:
        return paths.locate_run_directory(self.runs, trial.study, trial.trial)

    def _locate_cwd(self, trial: TrialAssigned) -> str | None:
        return None if self.cwd is None else self._fill(self.cwd, trial)

    def _fill(self, text: str, trial: TrialAssigned) -> str:
        run_directory = self._locate_run_directory(trial)
        return fill_placeholders(
            text, collect_texts(trial, run_directory, run_directory / PARAMS_FILE)
        )


def _check_folder(cwd: str | None) -> None:
    if cwd is not None and not Path(cwd).is_dir():
        raise NotADirectoryError(f"trainer.cwd={cwd!r} is no longer a folder")
