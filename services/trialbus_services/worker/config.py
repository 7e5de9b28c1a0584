"""What a worker runs, and how."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from trialbus.events import TrialAssigned


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker runs, and how.

    Attributes:
        endpoint: Where the hub is.
        command: The training: a program and its arguments. Nothing that comes over the bus is run.
        study: Trials of this study only; empty for any.
        name: For people; empty for host-pid.
        slots: Trials at the same time.
        env: Added to the worker's environment.
        cwd: Folder of the training; None is the worker's.
        logs: Folder for `<study>/<trial>-<attempt>.log`.
        grace_s: Seconds between SIGTERM and SIGKILL when a training is ended.
        ttl_s: Seconds of silence after which the worker counts as lost.
        connect_s: Seconds to wait for the hub at start.
    """

    endpoint: str
    command: list[str]
    logs: Path
    study: str = ""
    name: str = ""
    slots: int = 1
    env: dict[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    grace_s: float = 5.0
    ttl_s: float = 10.0
    connect_s: float = 10.0

    def log_of(self, trial: TrialAssigned) -> Path:
        """Return the file for what the training of a trial prints."""
        return self.logs / _file_name(trial.study) / f"{trial.trial}-{trial.attempt}.log"


def _file_name(study: str) -> str:
    """Return a folder's name for a study: the same where it can be, and never another's."""
    safe = re.sub(r"[^\w.-]", "_", study).lstrip(".")[:60]
    if safe == study:
        return safe
    return f"{safe}-{hashlib.sha256(study.encode()).hexdigest()[:8]}"
