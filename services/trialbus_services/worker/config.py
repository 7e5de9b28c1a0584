"""How a worker serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trialbus.messages.events import TrialAssigned
from trialbus_services.process import gpus, paths


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """How a worker serves trials; a `Trainer` says how a trial is run."""

    endpoint: str
    """Address of the hub."""
    logs: Path
    """Folder of the logs of trials, `<study>/<trial>-<attempt>.log`."""
    study: str = ""
    """Study whose trials are run; empty for any study."""
    name: str = ""
    """Name of the worker in views and logs; empty for `<host>-<pid>`."""
    slots: int = 1
    """Number of trials that run at the same time."""
    devices: tuple[str, ...] = ()
    """`CUDA_VISIBLE_DEVICES` of each slot; empty to leave GPUs alone."""
    gpus_per_trial: float = 1.0
    """GPUs of each slot, where `devices` has any."""
    ttl_s: float = 10.0
    """Seconds of silence after which the worker counts as lost."""
    connect_s: float = 10.0
    """Seconds to wait for the hub at start."""

    def slot_environment(self, slot: int) -> dict[str, str]:
        """Return the environment variables that the trainings of a slot get."""
        return {gpus.VARIABLE: self.devices[slot]} if self.devices else {}

    def trial_log(self, trial: TrialAssigned) -> Path:
        """Return the file that holds the output of an attempt."""
        return paths.trial_log(self.logs, trial.study, trial.trial, trial.attempt)
