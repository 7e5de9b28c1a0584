"""Application: a Hydra application as a file, from which other processes run single jobs of it."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]
import optuna
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

import trialbus
from trialbus.errors import SpecError
from trialbus.protocol.private_folder import make_private_folder, open_private_file
from trialbus.study.search_space import CategoricalParam, Param
from trialbus_services.optimizer.distributions import suggest_params
from trialbus_services.sweeper.search_space import SweepSpace, format_job


@dataclass(frozen=True)
class Application:
    """A Hydra application whose sweep has begun: a function of a trial, which runs the trial's job.

    In a file it carries the state of Hydra, which becomes that of the process that reads the file.
    """

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
    is_forked: bool = False
    """Whether the process that reads the file is forked for each job."""

    def __call__(self, trial: trialbus.Trial | optuna.Trial) -> Any:
        """Run the job of a trial, and return the objective values that the application returns.

        Args:
            trial: The trial; with `extend_space` one that is asked for its params.

        Raises:
            Exception: The error of the job.
        """
        if self.extend_space is not None:
            assert isinstance(trial, optuna.Trial)
            suggest_params(trial, self.space.params)
            self.extend_space(self.config, trial)
        return self.run_job(trial.number, format_job(self.space, dict(trial.params)))

    def run_job(self, number: int, overrides: list[str]) -> Any:
        """Run a job in this process as every launcher of Hydra does, and return what it returns.

        Args:
            number: Number of the job, `hydra.job.num`.
            overrides: Overrides of the job.

        Raises:
            Exception: The error of the job.
        """
        config = self._compose(overrides)
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

    def warm_up(self) -> None:
        """Compose the config of a job once, so that each fork of this process composes it faster.

        The first override that a process parses takes a tenth of a second: Hydra's grammar is
        loaded, and the paths through the grammar are found and kept.
        """
        with contextlib.suppress(Exception):  # a job says what is wrong
            self._compose_example()

    def check(self) -> None:
        """Compose the config of a job before anything starts.

        Raises:
            SpecError: The config has no such key or group, or no such value; names the override.
        """
        try:
            self._compose_example()
        except (HydraException, OmegaConfBaseException) as error:
            cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
            text = " ".join(f"{error}{cause}".split())
            raise SpecError("hydra.sweeper.params", f"no job can be composed: {text}") from None

    def _compose_example(self) -> None:
        params = {name: _choose_example(param) for name, param in self.space.params.items()}
        self._compose(format_job(self.space, params))

    def _compose(self, overrides: list[str]) -> DictConfig:
        setup_globals()
        loader = self.hydra_context.config_loader
        return loader.load_sweep_config(self.config, overrides)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the state of Hydra beside the application, functions of a script by value."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        state: dict[Any, Any] = Singleton.get_state()
        try:
            content = _pickle((state, fields, _collect_script()))
        except Exception:  # noqa: BLE001 - a function or class that the job may never need
            content = _pickle((state, fields, {}))
        return _restore_application, (list(sys.path), content)


def write_application(application: Application, path: Path) -> None:
    """Write an application to a file that only this user can read.

    Raises:
        SpecError: The application refers to something that cannot be sent to another process.
    """
    try:
        content = pickle.dumps(application)
    except Exception as error:
        raise SpecError(
            "hydra.sweeper.jobs",
            "fork and spawn run jobs in other processes, and the application cannot be sent there: "
            f"{error} (expected jobs=launcher, or an application without such globals)",
        ) from error
    make_private_folder(path.parent)
    with os.fdopen(open_private_file(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.write(content)


def _pickle(data: Any) -> bytes:
    content: bytes = cloudpickle.dumps(data)  # pyright: ignore[reportUnknownMemberType]
    return content


def _collect_script() -> dict[str, Any]:
    """Return the functions and classes of the script that this process runs, and its file."""
    names = vars(sys.modules["__main__"])
    if not names.get("__file__"):
        return {}
    return {"__file__": names["__file__"], "__spec__": None} | {
        name: value
        for name, value in names.items()
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__"
    }


def _restore_application(search_path: list[str], content: bytes) -> Application:
    """Return an application of a file, and make the state of Hydra here that of the sweep."""
    sys.path += [folder for folder in search_path if folder not in sys.path]
    state, fields, script = pickle.loads(content)  # noqa: S301 - of a file of this user alone
    Singleton.set_state(state)
    if script:
        # Configs name what the script defines, as `_target_: __main__.Net`.
        module = ModuleType("__main__")
        vars(module).update(script)
        sys.modules["__main__"] = module
    application = Application(**fields)
    if application.is_forked:
        application.warm_up()
    return application


def _choose_example(param: Param) -> Any:
    """Return a value of a param."""
    return param.labels[0] if isinstance(param, CategoricalParam) else param.low
