"""How a worker serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trialbus.messages.events import TrialAssigned
from trialbus_services.process import gpus, paths


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """How a worker serves; what it runs is its `Trainer`.

    Attributes:
        endpoint: Where the hub is.
        logs: Folder for `<study>/<trial>-<attempt>.log`.
        study: Trials of this study only; empty for any.
        name: For people; empty for host-pid.
        slots: Trials at the same time.
        devices: `CUDA_VISIBLE_DEVICES` of each slot; empty leaves GPUs alone.
        ttl_s: Seconds of silence after which the worker counts as lost.
        connect_s: Seconds to wait for the hub at start.
    """

    endpoint: str
    logs: Path
    study: str = ""
    name: str = ""
    slots: int = 1
    devices: tuple[str, ...] = ()
    ttl_s: float = 10.0
    connect_s: float = 10.0

    def variables_of(self, slot: int) -> dict[str, str]:
        """Return the environment variables of a slot's trainings."""
        return {gpus.VARIABLE: self.devices[slot]} if self.devices else {}

    def log_of(self, trial: TrialAssigned) -> Path:
        """Return the file for what the training of a trial prints."""
        return paths.trial_log(self.logs, trial.study, trial.trial, trial.attempt)
