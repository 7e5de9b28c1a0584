"""Trainers of a worker: a program for each trial, or a function in a warm process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trialbus.messages.events import TrialAssigned
from trialbus_services.config.settings import ParamsAs
from trialbus_services.process import paths
from trialbus_services.process.search_path import build_search_path
from trialbus_services.worker.command_line import command_of, values_of, variables_of
from trialbus_services.worker.training_process import Exit, run_training


class Trainer(Protocol):
    """Runs trials, each in a process of its own."""

    async def start(self) -> None:
        """Make ready.

        Raises:
            SpecError: It will never be able to run a trial; says why.
        """

    async def run(self, trial: TrialAssigned, env: Mapping[str, str], log: Path) -> Exit:
        """Run a trial to its end; a cancellation ends the training first.

        Args:
            trial: What to run.
            env: Variables by which the process finds the trial.
            log: Takes what it prints, after what it holds already.

        Raises:
            OSError: No process could be started, or a file not be written.
            ValueError: The trial cannot be handed to this trainer.
        """
        ...

    async def close(self) -> None:
        """End the processes that `start` began."""


@dataclass(frozen=True, kw_only=True)
class CommandTrainer:
    """Runs a program for each trial. Nothing that comes over the bus is ever run.

    Attributes:
        command: The program and its arguments.
        runs: Folder for `<study>/<trial>`, the folders of trials.
        params_as: How params reach the program.
        env: Added to the worker's environment.
        cwd: Folder it runs in; None is the worker's.
        grace_s: Seconds between SIGTERM and SIGKILL when it is ended.
    """

    command: list[str]
    runs: Path
    params_as: ParamsAs = "environment"
    env: dict[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    grace_s: float = 5.0

    async def start(self) -> None:
        """Do nothing: a program needs no preparation."""

    async def run(self, trial: TrialAssigned, env: Mapping[str, str], log: Path) -> Exit:
        """Run the program, see `Trainer`."""
        variables = variables_of(values_of(trial)) if self.params_as == "environment" else {}
        return await run_training(
            command_of(self.command, self.params_as, trial, self._folder_of(trial)),
            env={
                **os.environ,
                "PATH": build_search_path(os.environ),
                **self.env,
                **variables,
                **env,
            },
            cwd=self.cwd,
            log=log,
            grace_s=self.grace_s,
        )

    async def close(self) -> None:
        """Do nothing: every training has ended with its trial."""

    def _folder_of(self, trial: TrialAssigned) -> Path:
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise NotADirectoryError(f"trainer.cwd={self.cwd!r} is no folder any more")
        folder = paths.run_directory(self.runs, trial.study, trial.trial)
        if self.params_as == "file":
            folder.mkdir(parents=True, exist_ok=True)
        return folder
