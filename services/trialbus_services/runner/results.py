"""Results of a runner's study: JSON, best params, and the checkpoints of the best trials."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from trialbus.messages import events
from trialbus.study.nested_config import flatten_config, merge_configs
from trialbus.study.spec import StudySpec
from trialbus.trainer.checkpoint import locate_checkpoints
from trialbus_services.optimizer.attributes import ERROR
from trialbus_services.process import paths
from trialbus_services.reporter.best_params import format_config
from trialbus_services.reporter.snapshot import compute_run_time
from trialbus_services.runner.study_config import StudyConfig


def write_results(
    study: optuna.Study, spec: StudySpec, end: events.StudyFinished, directory: Path
) -> list[Path]:
    """Write the results of a study and return the paths of the files.

    `<study>_results.json` has all trials. In a folder named after the study are
    `best_params.json` and `best_config.yaml`: the whole configuration of the best trial, which a
    Hydra application takes as `--config-dir <directory> +<study>=best_config`.

    Args:
        study: Study that has ended.
        spec: Specification of the study.
        end: Event that ended the study.
        directory: Folder of the results, created if necessary.
    """
    trials = study.get_trials(deepcopy=False)
    best = study.best_trial if end.best_trials else None
    results = {
        "study": spec.name,
        "metric": spec.metrics[0],
        "direction": spec.directions[0],
        "reason": end.reason,
        "error": end.error,
        "counts": {
            "complete": end.counts.complete,
            "pruned": end.counts.pruned,
            "failed": end.counts.failed,
        },
        "best": None if best is None else _format_trial(best),
        "trials": [_format_trial(trial) for trial in trials],
    }
    files = [_write(paths.locate_results_file(directory, spec.name), _to_json(results))]
    if best is not None:
        folder = paths.locate_results_directory(directory, spec.name)
        params = spec.decode_params(best.params)
        files.append(_write(folder / "best_params.json", _to_json(params)))
        config = merge_configs(flatten_config(spec.config), params)
        # Quoted, so that whatever the name is, it ends with the line.
        text = (
            "# @package _global_\n"
            f"# Trial {best.number} of the study {json.dumps(spec.name)}, {best.value}.\n"
            f"{format_config(config)}"
        )
        files.append(_write(folder / "best_config.yaml", text))
    return files


def tidy_checkpoints(study: optuna.Study, config: StudyConfig) -> None:
    """Remove the checkpoints of all trials but the best."""
    kept_numbers: set[int] = set()
    trials = study.get_trials(deepcopy=False)
    if config.save_checkpoints and config.keep_best_n is None:
        return
    if config.save_checkpoints:
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best_first = config.direction == "maximize"
        complete.sort(key=lambda trial: trial.value or 0.0, reverse=best_first)
        kept_numbers = {trial.number for trial in complete[: config.keep_best_n]}
    for trial in trials:
        folder = locate_checkpoints(config.study_name, trial.number, Path.cwd())
        if trial.number not in kept_numbers and folder.is_dir():
            shutil.rmtree(folder)


def _format_trial(trial: FrozenTrial) -> dict[str, Any]:
    duration = compute_run_time(trial)
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": None if trial.value is None or not math.isfinite(trial.value) else trial.value,
        "params": trial.params,
        "steps": len(trial.intermediate_values),
        "duration_s": None if duration is None else duration.total_seconds(),
        "error": trial.user_attrs.get(ERROR),
    }


def _to_json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path
