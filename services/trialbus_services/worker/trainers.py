"""Trainers of a worker: the protocol, and the trainer that starts a program for each trial."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trialbus.messages.events import TrialAssigned
from trialbus.protocol.private_folder import make_private_folder
from trialbus_services.config.settings import ParamsAs
from trialbus_services.process import paths
from trialbus_services.process.search_path import build_search_path
from trialbus_services.worker.command_line import build_environment, collect_values, fill_command
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
    env: dict[str, str] = field(default_factory=dict[str, str])
    """Environment variables that are added to the worker's."""
    cwd: str | None = None
    """Working directory of the program; None for the worker's."""
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
        by_environment = self.params_as == "environment"
        params = build_environment(collect_values(trial)) if by_environment else {}
        return await run_training(
            fill_command(self.command, self.params_as, trial, self._prepare_run_directory(trial)),
            env={
                **os.environ,
                "PATH": build_search_path(os.environ),
                **self.env,
                **params,
                **env,
            },
            cwd=self.cwd,
            log=log,
            grace_s=self.grace_s,
            on_start=on_start,
        )

    async def close(self) -> None:
        """Return at once: every training has ended with the trial."""

    def _prepare_run_directory(self, trial: TrialAssigned) -> Path:
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise NotADirectoryError(f"trainer.cwd={self.cwd!r} is no longer a folder")
        run_directory = paths.locate_run_directory(self.runs, trial.study, trial.trial)
        if self.params_as == "file":
            make_private_folder(run_directory)
        return run_directory
