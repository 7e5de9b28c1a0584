"""Application: a Hydra application as a file, from which other processes run single jobs of it."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]
import optuna
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from trialbus.errors import SpecError
from trialbus.protocol.private_folder import make_private_folder, open_private_file
from trialbus_services.sweeper.search_space import SweepSpace

#: Environment variable of a job's process: the file of the application.
VARIABLE = "TRIALBUS_HYDRA_APPLICATION"


@dataclass(frozen=True)
class Application:
    """A Hydra application whose sweep has begun."""

    config: DictConfig
    """The composed config of the sweep."""
    hydra_context: HydraContext
    """Loader of the configs of jobs, and callbacks of the application."""
    task_function: TaskFunction
    """The function under `@hydra.main`."""
    space: SweepSpace
    """What the sweep varies."""
    extend_space: Callable[[DictConfig, optuna.Trial], Any] | None = None
    """Function that asks for further params of each trial; None if the space is complete."""

    def run_job(self, number: int, overrides: list[str]) -> Any:
        """Run a job in this process as every launcher of Hydra does, and return what it returns.

        Args:
            number: Number of the job, `hydra.job.num`.
            overrides: Overrides of the job.

        Raises:
            Exception: The error of the job.
        """
        setup_globals()
        loader = self.hydra_context.config_loader
        config = loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
        job = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        return job.return_value


def write_application(application: Application, path: Path) -> None:
    """Write an application to a file that only this user can read.

    Raises:
        SpecError: The application refers to something that cannot be sent to another process.
    """
    state: dict[str, Any] = Singleton.get_state()
    try:
        content: bytes = cloudpickle.dumps((state, application))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:
        raise SpecError(
            "hydra.sweeper.jobs",
            "fork and spawn run jobs in other processes, and the application cannot be sent there: "
            f"{error} (expected jobs=launcher, or an application without such globals)",
        ) from error
    make_private_folder(path.parent)
    with os.fdopen(open_private_file(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        pickle.dump(sys.path, file)
        file.write(content)


def read_application(path: str | os.PathLike[str]) -> Application:
    """Read an application, and make the state of Hydra in this process that of the sweep."""
    with Path(path).open("rb") as file:
        for folder in pickle.load(file):  # noqa: S301 - a file of this user alone
            if folder not in sys.path:
                sys.path.append(folder)
        state, application = pickle.load(file)  # noqa: S301
    Singleton.set_state(state)
    return application
