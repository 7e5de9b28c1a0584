"""Command lines and environments that give a trial's params to a program without trialbus."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from trialbus.messages.events import TrialAssigned
from trialbus.protocol.private_folder import open_private_file
from trialbus.study.nested_config import flatten_config
from trialbus_services.config.settings import ParamsAs, Switches
from trialbus_services.worker.placeholders import (
    fill_placeholders,
    list_placeholders,
    split_at_arguments,
)

#: Name of the file of params in the run directory of a trial.
PARAMS_FILE = "params.json"

#: Interpolation whose result is the text `???`, which OmegaConf would take for a missing value.
_MISSING = """${oc.decode:"'???'"}"""

#: Text that Hydra reads as the same text without quotes, unless the text is one of the constants.
_WORD = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_]\w*", re.ASCII | re.IGNORECASE)

_NO_SWITCHES: Switches = {}


def fill_command(
    command: Sequence[str],
    params_as: ParamsAs,
    trial: TrialAssigned,
    folder: Path,
    *,
    switches: Switches = _NO_SWITCHES,
) -> list[str]:
    """Return the command of a trial, and write the file of params where the program reads a file.

    Args:
        command: Program and its arguments.
        params_as: How the program takes the params.
        trial: The trial.
        folder: Run directory of the trial, absolute; the file of params is written to this folder.
        switches: Options without a value, by param.

    Raises:
        OSError: The file of params cannot be written.
        ValueError: A placeholder has no value in this trial; names the placeholder.
    """
    params_file = folder / PARAMS_FILE
    if params_as == "file":
        with os.fdopen(open_private_file(params_file, os.O_WRONLY | os.O_TRUNC), "w") as file:
            file.write(format_params_file(collect_values(trial)))
    return build_command(
        command, params_as, trial, run_dir=folder, params_file=params_file, switches=switches
    )


def build_command(
    command: Sequence[str],
    params_as: ParamsAs,
    trial: TrialAssigned,
    *,
    run_dir: Path,
    params_file: Path,
    switches: Switches = _NO_SWITCHES,
) -> list[str]:
    """Return the command of a trial, with all placeholders filled in and the params added.

    Overrides, flags and the file are put in the place of the argument `{args}`, else behind the
    arguments; for environment variables see `build_environment`. A value that has a placeholder
    of its own is not given a second time.

    Args:
        command: Program and its arguments.
        params_as: How the program takes the params.
        trial: The trial.
        run_dir: Folder that stands for `{run_dir}`.
        params_file: File that stands for `{params_file}`.
        switches: Options without a value, by param.

    Raises:
        ValueError: A placeholder has no value in this trial; names the placeholder.
    """
    used = {name for argument in command for name in list_placeholders(argument)}
    values = collect_values(trial)
    texts = collect_texts(trial, run_dir, params_file)
    values = {name: value for name, value in values.items() if name not in used}
    added: list[str] = []
    match params_as:
        case "overrides":
            added = list_overrides(values, trial.config_name)
        case "flags":
            added = list_flags(values, switches)
        case "file":
            added = [] if "params_file" in used else [str(params_file)]
        case "environment":
            pass
    before, behind = split_at_arguments(command)
    return [
        *(fill_placeholders(argument, texts) for argument in before),
        *added,
        *(fill_placeholders(argument, texts) for argument in behind),
    ]


def collect_texts(trial: TrialAssigned, run_dir: Path, params_file: Path) -> dict[str, str]:
    """Return the text of every placeholder of a trial, by the placeholder's name."""
    return {name: format_text(value) for name, value in collect_values(trial).items()} | {
        "study": trial.study,
        "trial": str(trial.trial),
        "attempt": str(trial.attempt),
        "seed": str(trial.seed),
        "budget": "" if trial.budget is None else str(trial.budget),
        "run_dir": str(run_dir),
        "params_file": str(params_file),
    }


def collect_values(trial: TrialAssigned) -> dict[str, Any]:
    """Return the values for a program by dotted name: the study's configuration, then the params.

    A param replaces a value of the same name. Values above or below a param stay: to Hydra
    `optimizer=adam` chooses a group, in which `optimizer.lr=0.1` is a value.
    """
    return {**flatten_config(trial.config), **trial.params}


def list_overrides(values: Mapping[str, Any], config_name: str | None = None) -> list[str]:
    """Return values as the overrides of a Hydra application.

    Args:
        values: Values by dotted name.
        config_name: Configuration that the application composes; None for the application's own.
    """
    chosen = [f"--config-name={config_name}"] if config_name else []
    return [*chosen, *(f"{name}={quote_for_hydra(value)}" for name, value in values.items())]


def list_flags(values: Mapping[str, Any], switches: Switches = _NO_SWITCHES) -> list[str]:
    """Return values as the flags of a program; a value that is None has no flag.

    Args:
        values: Values by name.
        switches: Options without a value, by param.
    """
    flags: list[str] = []
    for name, value in values.items():
        if name in switches:
            forms = switches[name]
            on, off = (forms, "") if isinstance(forms, str) else forms
            flags += filter(None, [on if value else off])
        elif value is not None:
            flags.append(f"--{name}={format_text(value)}")
    return flags


def build_environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as environment variables: `optimizer.lr` is `TRIALBUS_PARAM_OPTIMIZER_LR`.

    Raises:
        ValueError: Two values would have the same variable.
    """
    environment: dict[str, str] = {}
    for name, value in values.items():
        variable = f"TRIALBUS_PARAM_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        if variable in environment:
            raise ValueError(f"params: {name!r} and another param are both ${variable}")
        environment[variable] = "" if value is None else format_text(value)
    return environment


def format_params_file(values: Mapping[str, Any]) -> str:
    """Return values as the JSON of a file of params.

    As in Python's `json` and in JSON5, infinities and NaN are `Infinity`, `-Infinity` and `NaN`.
    """
    return json.dumps(values, indent=2) + "\n"


def quote_for_hydra(value: Any) -> str:
    """Return a value as text that Hydra's grammar of overrides parses to the same value.

    The application gets text as it is, also text that OmegaConf would interpolate (`${a}`) or take
    for a missing value (`???`).

    Source:
        Hydra 1.3, "Basic override syntax"; `hydra.core.override_parser`.

    Example:
        >>> quote_for_hydra(["adam", "null", None, {"deep": 2}])
        "[adam,'null',null,{deep:2}]"
    """
    match value:
        case list() | tuple():
            return f"[{','.join(map(quote_for_hydra, cast('list[Any]', value)))}]"
        case dict():
            entries = cast("dict[str, Any]", value).items()
            return f"{{{','.join(f'{_escape_key(k)}:{quote_for_hydra(v)}' for k, v in entries)}}}"
        case None:
            return "null"
        case str():
            return value if _WORD.fullmatch(value) else _quote_text(escape_for_omegaconf(value))
        case float() if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        case _:
            return json.dumps(value)


def format_text(value: Any) -> str:
    """Return a value as the text of a flag or an environment variable: text as it is, else JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def escape_for_omegaconf(text: str) -> str:
    r"""Return text for a config from which an application reads the text as it is.

    Source:
        OmegaConf 2.3, "Escaping interpolation strings", `oc.decode`.

    Example:
        >>> print(escape_for_omegaconf("${a}"))
        \${a}
    """
    # A backslash before `${` escapes it, and so do the backslashes before that one each other.
    return (
        _MISSING
        if text == "???"
        else re.sub(r"(\\*)\$\{", lambda match: rf"{match[1] * 2}\${{", text)
    )


def _quote_text(text: str) -> str:
    # Imported for such a text alone, since most trials begin without one.
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def _escape_key(name: str) -> str:
    return re.sub(r"([\\()\[\]{}:=,\s])", r"\\\1", name)
