"""Command lines and environments that give a trial's params to a program without trialbus."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Quote, QuotedString

from trialbus.messages.events import TrialAssigned
from trialbus.study.nested_config import flatten_config
from trialbus_services.config.settings import ParamsAs

_FILE = "{params_file}"


def command_of(
    command: Sequence[str], params_as: ParamsAs, trial: TrialAssigned, folder: Path
) -> list[str]:
    """Return the command for a trial.

    `{study}`, `{trial}`, `{attempt}`, `{seed}`, `{budget}`, `{run_dir}` and `{params_file}` in the
    arguments are filled in.

    Args:
        command: A program and its arguments.
        params_as: How it takes the `values_of` the trial; all but environment variables are put
            after them.
        trial: The trial.
        folder: Its folder, absolute; the file of its values is put there.

    Raises:
        OSError: The file cannot be written.
    """
    values = {
        "{study}": trial.study,
        "{trial}": str(trial.trial),
        "{attempt}": str(trial.attempt),
        "{seed}": str(trial.seed),
        "{budget}": "" if trial.budget is None else str(trial.budget),
        "{run_dir}": str(folder),
        _FILE: str(folder / "params.json"),
    }
    filled = [_filled(argument, values) for argument in command]
    given = values_of(trial)
    match params_as:
        case "overrides":
            named = [f"--config-name={trial.config_name}"] if trial.config_name else []
            overrides = [f"{name}={hydra_text(value)}" for name, value in given.items()]
            return [*filled, *named, *overrides]
        case "flags":
            return filled + [
                f"--{name}={_text(value)}" for name, value in given.items() if value is not None
            ]
        case "file":
            Path(values[_FILE]).write_text(json.dumps(given, indent=2) + "\n")
            in_place = any(_FILE in argument for argument in command)
            return filled if in_place else [*filled, values[_FILE]]
        case "environment":
            return filled


def values_of(trial: TrialAssigned) -> dict[str, Any]:
    """Return the values for a program by dotted name: the study's configuration, then the params.

    A param takes the place of the value of its name. One above or below it stays: to Hydra
    `optimizer=adam` chooses a group, in which `optimizer.lr=0.1` is a value.
    """
    return {**flatten_config(trial.config), **trial.params}


def variables_of(params: Mapping[str, Any]) -> dict[str, str]:
    """Return values as environment variables: `optimizer.lr` is `TRIALBUS_PARAM_OPTIMIZER_LR`.

    Raises:
        ValueError: Two params would have the same variable.
    """
    variables: dict[str, str] = {}
    for name, value in params.items():
        variable = f"TRIALBUS_PARAM_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        if variable in variables:
            raise ValueError(f"params: {name!r} and another one are both ${variable}")
        variables[variable] = "" if value is None else _text(value)
    return variables


def hydra_text(value: Any) -> str:
    """Return a value as Hydra's grammar of overrides reads it back.

    Source:
        Hydra 1.3, "Basic override syntax"; `hydra.core.override_parser`.

    Example:
        >>> hydra_text(["adam", None, {"deep": 2}])
        "['adam',null,{deep:2}]"
    """
    match value:
        case list():
            return f"[{','.join(map(hydra_text, cast(list[Any], value)))}]"
        case dict():
            entries = cast(dict[str, Any], value).items()
            return f"{{{','.join(f'{_key(k)}:{hydra_text(v)}' for k, v in entries)}}}"
        case None:
            return "null"
        case str():
            return QuotedString(text=value, quote=Quote.single).with_quotes()
        case _:
            return _text(value)


def _key(name: str) -> str:
    return re.sub(r"([\\()\[\]{}:=,\s])", r"\\\1", name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _filled(argument: str, values: Mapping[str, str]) -> str:
    # In one pass, so that a study called `{seed}` stays what it is.
    return re.sub(r"\{\w+\}", lambda found: values.get(found[0], found[0]), argument)
