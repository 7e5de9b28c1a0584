"""Dry run of a study: what will run, the search space and the first trial's command as text."""

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
from trialbus_services.config import sections, settings
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.launcher.launcher import Plan
from trialbus_services.optimizer.assignment import build_assignment
from trialbus_services.optimizer.define_by_run import find_params
from trialbus_services.optimizer.sampling.messages import Start
from trialbus_services.optimizer.sampling.study_copy import StudyCopy
from trialbus_services.optimizer.storage import find_study
from trialbus_services.process import paths
from trialbus_services.worker.command_line import build_environment, collect_values, fill_command


def format_plan(plan: Plan, *, with_config: bool = False) -> str:
    """Return what a study will run: its limits, search space, and the command of its first trial.

    Args:
        plan: Checked study.
        with_config: Whether the whole config follows.
    """
    spec = plan.spec
    recorded = find_study(plan.storage.url, spec.name) if spec.define_by_run else None
    params = find_params(recorded.get_trials(deepcopy=False)) if recorded else spec.space
    space = {name: msgspec.to_builtins(param) for name, param in params.items()}
    title = "What earlier trials asked for" if spec.define_by_run else "The search space"
    return "\n".join(
        [
            "# The study",
            *_describe_study(plan),
            "",
            f"# {title} ({len(space)} params)",
            *(f"{name}: {_format_on_one_line(param)}" for name, param in space.items()),
            "",
            "# The first trial",
            *_describe_first_trial(spec, plan.bus, plan.trainer),
            "",
            *(
                _format_config(plan)
                if with_config
                else ["# The config: trialbus study --dry-run -v"]
            ),
        ]
    )


def _describe_study(plan: Plan) -> list[str]:
    spec = plan.spec
    budget = "" if spec.budget is None else f", of {spec.budget} steps"
    objectives = zip(spec.metrics, spec.directions, strict=True)
    lines = {
        "name": spec.name,
        "trials": f"{spec.n_trials}{budget}",
        "objective": ", ".join(f"{direction} {metric}" for metric, direction in objectives),
        "sampler": spec.sampler.type,
        "pruner": "none" if spec.pruner is None else spec.pruner.type,
        "storage": mask_secrets(plan.storage.url),
    }
    if plan.trainer is not None:
        worker = sections.read_section(plan.composed.config, settings.WorkerSettings)
        lines["slots"] = str(worker.slots)
    return [f"{name}: {text}" for name, text in lines.items()]


def _format_config(plan: Plan) -> list[str]:
    config = mask_secrets(OmegaConf.to_container(plan.composed.config, resolve=True))
    return ["# The config", yaml.safe_dump(config, sort_keys=False, allow_unicode=True)]


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
