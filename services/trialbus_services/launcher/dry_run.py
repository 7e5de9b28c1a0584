"""Dry run of a study: the config, the search space and the command of the first trial as text."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import optuna
import yaml
from omegaconf import OmegaConf
from optuna.trial import TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.config import settings
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.launcher.launcher import Plan
from trialbus_services.optimizer.assignment import build_assignment
from trialbus_services.optimizer.define_by_run import find_params
from trialbus_services.optimizer.sampling.messages import Start
from trialbus_services.optimizer.sampling.study_copy import StudyCopy
from trialbus_services.optimizer.storage import find_study
from trialbus_services.process import paths
from trialbus_services.worker.command_line import build_environment, collect_values, fill_command


def format_plan(plan: Plan) -> str:
    """Return the config, the search space and the command of the first trial of a study."""
    spec = plan.spec
    config = mask_secrets(OmegaConf.to_container(plan.composed.config, resolve=True))
    recorded = find_study(plan.storage.url, spec.name) if spec.define_by_run else None
    params = find_params(recorded.get_trials(deepcopy=False)) if recorded else spec.space
    space = {name: msgspec.to_builtins(param) for name, param in params.items()}
    title = "What earlier trials asked for" if spec.define_by_run else "The search space"
    return "\n".join(
        [
            "# The config",
            yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
            f"# {title} ({len(space)} params)",
            *(f"{name}: {_format_on_one_line(param)}" for name, param in space.items()),
            "",
            "# The first trial",
            *_describe_first_trial(spec, plan.bus, plan.trainer),
        ]
    )


def _format_on_one_line(data: Any) -> str:
    return yaml.safe_dump(
        data, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    ).strip()


def _describe_first_trial(
    spec: StudySpec, bus: settings.BusSettings, trainer: settings.TrainerSettings | None
) -> list[str]:
    """Return the params, environment and command of the first trial, as lines of text."""
    enqueued = [
        optuna.trial.create_trial(
            state=TrialState.WAITING, system_attrs={"fixed_params": spec.encode_params(params)}
        )
        for params in spec.enqueue
    ]
    study = StudyCopy(Start(spec, enqueued, study_attrs={}, ahead=0))
    trial = build_assignment(spec, 0, study.ask().params)
    lines = [f"params: {_format_on_one_line(trial.params)}"]
    if trainer is None:
        return [*lines, "command: none; trainings ask for their trials"]
    if trainer.function is not None:
        return [*lines, f"function: {trainer.function}"]
    folder = paths.locate_run_directory(bus.runs, spec.name, 0)
    with tempfile.TemporaryDirectory() as placeholder:
        command = fill_command(
            trainer.argv, trainer.params_as, trial, Path(placeholder), switches=trainer.switches
        )
        command = [argument.replace(placeholder, str(folder)) for argument in command]
    variables = (
        build_environment(collect_values(trial)) if trainer.params_as == "environment" else {}
    )
    environment = {**mask_secrets(trainer.env, "trainer.env"), **variables}
    return [
        *lines,
        *([f"folder: {trainer.cwd}"] if trainer.cwd else []),
        *([f"environment: {_format_on_one_line(environment)}"] if environment else []),
        f"command: {shlex.join(mask_secrets(command))}",
    ]
