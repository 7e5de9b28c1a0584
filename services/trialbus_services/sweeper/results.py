"""Results of a sweep: the files that users of Hydra's sweepers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trialbus.messages.events import StudyFinished
from trialbus.study.spec import StudySpec

#: The config of the sweep, which every sweeper of Hydra writes to `hydra.sweep.dir`.
MULTIRUN_FILE = "multirun.yaml"
#: The best trial, or the Pareto front, as hydra-optuna-sweeper writes it.
RESULTS_FILE = "optimization_results.yaml"


def write_multirun(config: DictConfig) -> Path:
    """Make the folder of a sweep, write the config of the sweep, and return the folder."""
    folder = Path(str(config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / MULTIRUN_FILE)
    return folder


def write_results(folder: Path, spec: StudySpec, end: StudyFinished) -> Path:
    """Write the best params and value of a study, or its Pareto front, and return the file.

    Args:
        folder: Folder of the sweep.
        spec: Specification of the study.
        end: End of the study, with at least one complete trial.
    """
    results: dict[str, Any] = {"name": "optuna"}
    if len(spec.objectives) == 1:
        best = end.best_trials[0]
        results |= {"best_params": best.params, "best_value": best.values[0]}
    else:
        results["solutions"] = [
            {"params": trial.params, "values": trial.values} for trial in end.best_trials
        ]
    path = folder / RESULTS_FILE
    OmegaConf.save(OmegaConf.create(results), path)
    return path
