"""Application of Hydra for the benchmark of sweeps: jobs of uneven length, some of which fail.

It runs beside trialbus and in an environment that has only Hydra and its sweeper for Optuna.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig

#: Variable with the file to which each job writes its number, and when it began and ended.
TIMES_VARIABLE = "SWEEP_TIMES"

_LENGTHS = (1.0, 1.0, 4.0, 1.0, 2.0, 1.0, 1.0, 3.0)  # of the jobs in turn, in units of `cfg.unit_s`
_STEPS = 20
_FAILS_EVERY = 10


def _report(step: int, loss: float) -> None:
    """Report the loss where trialbus is installed, which prunes bad jobs."""
    try:
        import trialbus
    except ImportError:
        return
    trialbus.report(step, {"loss": loss})


@hydra.main(version_base="1.3", config_path=None)
def main(cfg: Any) -> float:
    began = time.time()
    number = int(HydraConfig.get().job.num)
    step_s = _LENGTHS[number % len(_LENGTHS)] * cfg.unit_s / _STEPS
    loss = 0.0
    try:
        for step in range(_STEPS):
            time.sleep(step_s)
            loss = float(cfg.x) ** 2 + 1 / (step + 1)
            if cfg.reports:
                _report(step, loss)
        if number % _FAILS_EVERY == _FAILS_EVERY - 1:
            raise RuntimeError("this job fails, as some do")
        return loss
    finally:
        with Path(os.environ[TIMES_VARIABLE]).open("a", encoding="utf-8") as file:
            file.write(f"{number} {began} {time.time()} {step_s * _STEPS}\n")


if __name__ == "__main__":
    main()
