"""Hydra: makes each run of an application with `@hydra.main` a trial.

The callback is configured in the application's config, or by a worker on the command line
(`trainer=hydra`):

```yaml
hydra:
  callbacks:
    trialbus:
      _target_: trialbus.callbacks.hydra.TrialCallback
```
"""

from __future__ import annotations

import logging
import os
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from trialbus.trainer.assignment import TRIAL_VARIABLE
from trialbus.trainer.attachment import MULTIRUN_ERROR, attach
from trialbus.trainer.trial import Trial

logger = logging.getLogger(__name__)


class TrialCallback(Callback):
    """A callback of Hydra that attaches to the process's trial and ends the trial with the job.

    The application returns the trial's objective value, or values; with None the values come from
    the evaluations. In a process without a trial the callback does nothing. An application that
    reports calls `trialbus.attach()`, which returns the same trial.
    """

    def __init__(self) -> None:
        self._trial: Trial | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """End the process if the application begins a sweep in the process of one trial.

        Raises:
            SystemExit: Hydra only warns of other exceptions in a callback.
        """
        if os.environ.get(TRIAL_VARIABLE):
            raise SystemExit(f"error: {MULTIRUN_ERROR}")

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Attach to the trial of this process."""
        if os.environ.get(TRIAL_VARIABLE):
            self._trial = attach()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """End the trial in the state in which the job ended."""
        trial, self._trial = self._trial, None
        if trial is None:
            return
        try:
            with trial:
                # Raises the error of a failed job, which Hydra raises too.
                values = job_return.return_value
                if values is not None:
                    trial.complete(values)
        except Exception:
            logger.debug("the application failed", exc_info=True)
