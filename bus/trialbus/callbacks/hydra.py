"""Hydra: makes a trial of each run of an application with `@hydra.main`.

One line in the application's config, or on its command line, which a worker can write
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
from trialbus.trainer.trial import Trial, attach

logger = logging.getLogger(__name__)


class TrialCallback(Callback):
    """Attaches to the trial of this process, and ends it as the application ends.

    What the application returns is the trial's objective value, or its values; None leaves them
    to the evaluations. Where there is no trial it does nothing. `trialbus.attach()` in the
    application returns the same trial, for those that report.
    """

    def __init__(self) -> None:
        self._trial: Trial | None = None

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Attach."""
        if os.environ.get(TRIAL_VARIABLE):
            self._trial = attach()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """End the trial as the application ended."""
        trial, self._trial = self._trial, None
        if trial is None:
            return
        try:
            with trial:
                # Hydra goes on to raise, or to return, what the application did.
                values = job_return.return_value
                if values is not None:
                    trial.complete(values)
        except Exception:
            logger.debug("the application failed", exc_info=True)
