"""Cost of `ray.tune.report` in a training: `python -m benchmarks.ray_tune ROUNDS STEPS`."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from typing import Any

from benchmarks.trainer_roles import STEP_S, Training, compute_overhead_percent

MISSING = "the Python package ray[tune] is not installed"


def is_installed() -> bool:
    """Tell whether Ray Tune is installed."""
    return importlib.util.find_spec("ray") is not None


def main(rounds: int, steps: int) -> float:
    """Train in a trial of Ray Tune, in turn with and without reports; return the overhead."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray: Any = importlib.import_module("ray")
    tune: Any = importlib.import_module("ray.tune")

    def train(_: dict[str, Any]) -> None:
        training = Training(STEP_S)
        alone: list[float] = []
        reporting: list[float] = []
        for _block in range(rounds):
            for blocks in (alone, reporting):
                began = time.perf_counter()
                for _step in range(steps):
                    loss = training.step()
                    if blocks is reporting:
                        tune.report({"loss": loss})
                blocks.append(time.perf_counter() - began)
        tune.report({"loss": 0.0, "overhead": compute_overhead_percent(reporting, alone)})

    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(train, run_config=tune.RunConfig(storage_path=folder, verbose=0))
        (result,) = tuner.fit()
    ray.shutdown()
    if result.error is not None:
        raise result.error
    return float(result.metrics["overhead"])


if __name__ == "__main__":
    print(json.dumps({"overhead": main(int(sys.argv[1]), int(sys.argv[2]))}))
