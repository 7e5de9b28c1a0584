"""TrialbusSweeper: the sweeper that Hydra finds, which imports trialbus when it is chosen."""

from __future__ import annotations

from typing import Any

from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.trialbus_sweeper._config import register

register()


class TrialbusSweeper(Sweeper):
    """Runs the jobs of a sweep as the trials of a study on the bus.

    Args:
        settings: The keys of `TrialbusSweeperConf`.
    """

    def __init__(self, **settings: Any) -> None:
        pass  # the sweep reads them from the config, where they are not resolved yet

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the application, see `hydra.plugins.sweeper.Sweeper.setup`."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep.

        Args:
            arguments: Overrides of the command line, sweeps among them.

        Raises:
            CompactHydraException: The sweep cannot run or has failed; Hydra prints its text alone.
        """
        try:
            from trialbus_services.sweeper.sweep import run_sweep
        except ImportError as error:
            raise CompactHydraException(
                f"error: hydra/sweeper=trialbus needs the services of trialbus ({error}): "
                'pip install "trialbus[services]"'
            ) from None
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        run_sweep(
            config=self.config,
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            arguments=arguments,
        )
