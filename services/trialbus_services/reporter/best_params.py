"""Best params: the params of a trial as YAML, and the command that runs the trial again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import msgspec
import yaml
from omegaconf._utils import get_yaml_loader
from optuna.trial import FrozenTrial

from trialbus.messages.events import TrialAssigned
from trialbus.study.nested_config import Params
from trialbus.study.spec import StudySpec
from trialbus_services.config.settings import ParamsAs, TrainerSettings
from trialbus_services.optimizer.assignment import build_assignment
from trialbus_services.optimizer.recorded_spec import read_spec
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import StudySummary, get_state
from trialbus_services.views.formats import format_value
from trialbus_services.worker.command_line import (
    build_command,
    build_environment,
    collect_values,
    escape_for_omegaconf,
    format_params_file,
    list_flags,
    list_overrides,
)

#: Name of the file with the params, and of the file for programs that read their params from one.
YAML, JSON = "best_params.yaml", "best_params.json"

Form: TypeAlias = Literal["flags", "overrides", "json", "yaml", "env"]
"""Form of the params of a trial in text: for a command line, a file or a shell."""

_FORMS: dict[ParamsAs, Form] = {"flags": "flags", "overrides": "overrides", "file": "json"}

#: Run directory of the printed command, in the folder from which the command is run.
_RUN_DIR = Path("best_run")


class _Dumper(yaml.SafeDumper):
    """Writes text so that both PyYAML and OmegaConf read it as the same text."""

    def represent_text(self, text: str) -> yaml.Node:
        """Return the node of a text; a text with control characters is in double quotes."""
        # In other styles PyYAML folds characters that YAML takes for line breaks.
        style = None if text.isprintable() else '"'
        return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)

# To OmegaConf `1e-3` is a number, to PyYAML text.
for _first, _resolvers in get_yaml_loader().yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_first])  # pyright: ignore[reportUnknownMemberType]


def write_params(
    trial: FrozenTrial, summary: StudySummary, spec: StudySpec | None, home: Path
) -> dict[str, str]:
    """Return the files with the params of a trial, as text by name.

    `best_params.yaml` is a config that overrides a Hydra application's: dots in a name make groups,
    and a text with values below it chooses a group. The comment has the command that runs the trial
    again. `best_params.json` has the value of each param by name, or what the program of the trial
    read from its file of params.

    Args:
        trial: The trial.
        summary: Summary of the trial's study.
        spec: Specification of the study; None for a study of plain Optuna.
        home: Folder of the files.
    """
    params = dict(trial.params) if spec is None else spec.decode_params(trial.params)
    trainer = _read_trainer(summary.config)
    values: Mapping[str, Any] = params
    if spec is None or trainer is None:
        command = _suggest_command(home.name)
    else:
        assigned = build_assignment(spec, trial.number, trial.params)
        command = _build_command(trainer, assigned, home / JSON)
        values = collect_values(assigned) if trainer.params_as == "file" else params
    comment = [describe_trial(trial, summary), command]
    lines = ["# @package _global_", *(f"# {line}" for line in comment), format_config(params)]
    return {YAML: "\n".join(lines), JSON: format_params_file(values)}


def find_form(summary: StudySummary) -> Form:
    """Return the form in which a study's program takes its params; flags where `attach` does."""
    trainer = _read_trainer(summary.config)
    return _FORMS.get(trainer.params_as, "flags") if trainer else "flags"


def format_params(trial: FrozenTrial, study: Snapshot, summary: StudySummary, form: Form) -> str:
    """Return the params of a trial as text, in forms for a command on one line.

    Flags, overrides and variables are quoted for a shell, and also have the values that all trials
    of the study share.

    Args:
        trial: The trial.
        study: The study of the trial.
        summary: Summary of the study.
        form: Form of the text.
    """
    spec, trainer = read_spec(study.user_attrs), _read_trainer(summary.config)
    if spec is None:
        params: Mapping[str, Any] = dict(trial.params)
        values, config_name = params, None
    else:
        assigned = build_assignment(spec, trial.number, trial.params)
        params, values = assigned.params, collect_values(assigned)
        config_name = assigned.config_name
    match form:
        case "json":
            return json.dumps(values if trainer and trainer.params_as == "file" else params)
        case "yaml":
            return format_config(params).rstrip("\n")
        case "flags":
            arguments = list_flags(values, trainer.switches if trainer else {})
        case "overrides":
            arguments = list_overrides(values, config_name)
        case "env":
            return " ".join(_list_variables(values))
    return " ".join(map(_quote, arguments))


def describe_trial(trial: FrozenTrial, summary: StudySummary) -> str:
    """Return a line about a trial: number, study, rank, and values or state."""
    values = ", ".join(
        f"{metric}={format_value(value)}"
        for metric, value in zip(summary.metrics, trial.values or (), strict=False)
    )
    is_best = any(trial.number == best.number for best in summary.best)
    n_best = len(summary.best)
    front = f"one of {n_best} on the Pareto front"
    role = ("the best" if n_best == 1 else front) if is_best else get_state(trial)
    return " ".join(f"trial {trial.number} of {summary.name}, {role}: {values}".split()).rstrip(":")


def format_config(values: Mapping[str, Any]) -> str:
    """Return values by dotted name as YAML of a config that overrides a Hydra application's.

    A text that has values below it chooses a group of the application, in its list of defaults.
    Text is escaped where OmegaConf would interpolate it, or take it for a missing value.
    """
    groups = {
        name: value
        for name, value in values.items()
        if isinstance(value, str) and any(other.startswith(f"{name}.") for other in values)
    }
    others = {name: _escape(value) for name, value in values.items() if name not in groups}
    chosen = [{f"override /{name}": value} for name, value in groups.items()]
    config = {**({"defaults": chosen} if chosen else {}), **Params(others).nested()}
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _escape(value: Any) -> Any:
    match value:
        case str():
            return escape_for_omegaconf(value)
        case list() | tuple():
            return [_escape(entry) for entry in cast("list[Any]", value)]
        case dict():
            return {name: _escape(entry) for name, entry in cast("dict[str, Any]", value).items()}
        case _:
            return value


def _read_trainer(config: Mapping[str, Any] | None) -> TrainerSettings | None:
    """Return the trainer of a study's config; None where it is not known or is a function."""
    try:
        trainer = msgspec.convert((config or {}).get("trainer"), TrainerSettings)
    except msgspec.ValidationError:
        return None
    return trainer if trainer.command and trainer.function is None else None


def _build_command(trainer: TrainerSettings, assigned: TrialAssigned, params_file: Path) -> str:
    """Return the command of a trial for a shell, with folder and variables where needed."""
    # Hydra's own settings, such as the run directory, are left to the application.
    command = build_command(
        [argument for argument in trainer.argv if not re.match(r"\+*hydra\.", argument)],
        trainer.params_as,
        assigned,
        run_dir=_RUN_DIR,
        params_file=params_file,
        switches=trainer.switches,
    )
    is_environment = trainer.params_as == "environment"
    variables = _list_variables(collect_values(assigned)) if is_environment else []
    words = [*variables, *map(_quote, command)]
    folder = [] if trainer.cwd is None else ["cd", _quote(trainer.cwd), "&&"]
    return " ".join([*folder, *words])


def _list_variables(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_quote(value)}" for name, value in build_environment(values).items()]


def _suggest_command(folder: str) -> str:
    """Return the command of a Hydra application that is given the config, of an unknown name."""
    return f"python train.py --config-dir <the folder above this one> +{folder}=best_params"


def _quote(text: str) -> str:
    """Quote a word for a shell on one line: control characters as bash and zsh escape them."""
    if "'" in text and text.isprintable() and not set(text) & set('"$`\\!'):
        return f'"{text}"'
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escape_character, text))}'"


def _escape_character(character: str) -> str:
    if character.isprintable():
        return {"\\": r"\\", "'": r"\'"}.get(character, character)
    code = ord(character)
    return rf"\x{code:02x}" if code < 0x80 else rf"\U{code:08x}"
