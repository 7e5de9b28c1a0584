"""Placeholders of a command: names in braces, which stand for the values of a trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trialbus.errors import SpecError
from trialbus.study.nested_config import flatten_config
from trialbus.study.spec import StudySpec
from trialbus.study.validation import format_expected

RUN_DIRECTORY = "{run_dir}"
"""Placeholder of the run directory of a trial."""

#: Placeholders beside the names of params and of the values that all trials share.
_NAMES = ("study", "trial", "attempt", "seed", "budget", "run_dir", "params_file", "args")
#: Argument that stands for all params.
_ARGUMENTS = "{args}"

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}|\{([\w./-]+)\}")


def fill_placeholders(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the value in place of each placeholder; doubled braces become braces.

    Raises:
        ValueError: A placeholder has no value; names the placeholder.

    Example:
        >>> fill_placeholders("--lr={lr} {{x}}", {"lr": "0.1"})
        '--lr=0.1 {x}'
    """

    def fill(match: re.Match[str]) -> str:
        if match[2] is None:
            return f"{{{match[1]}}}"
        if match[2] not in values:
            raise ValueError(f"{match[0]} in {text!r} has no value in this trial")
        return values[match[2]]

    # In one pass, so that a study called `{seed}` keeps its name.
    return _PLACEHOLDER.sub(fill, text)


def list_placeholders(text: str) -> list[str]:
    """Return the names of the placeholders in a text, without their braces."""
    return [match[2] for match in _PLACEHOLDER.finditer(text) if match[2] is not None]


def split_at_arguments(command: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the arguments before and behind the place of the params: `{args}`, else the end."""
    place = command.index(_ARGUMENTS) if _ARGUMENTS in command else len(command)
    return command[:place], command[place + 1 :]


def check_placeholders(key: str, texts: Sequence[str], spec: StudySpec) -> None:
    """Check that every placeholder in texts has a value in every trial of a study.

    Args:
        key: Key of the texts in the config, for the error.
        texts: Arguments of a command, or paths.
        spec: Specification of the study.

    Raises:
        SpecError: A placeholder is unknown, or is a param that some trials lack.
    """
    always = [name for name, param in spec.space.items() if not param.when]
    known = [*_NAMES, *always, *flatten_config(spec.config)]
    for text in texts:
        for name in list_placeholders(text):
            if name == "args" and text != _ARGUMENTS:
                raise SpecError(key, f"{{args}} in {text!r} (expected an argument of its own)")
            if name in known:
                continue
            if name in spec.space:
                problem = "is not in every trial (expected params without `when`, or params_as)"
            else:
                hint = format_expected(name, known)
                problem = f"has no value{hint}; for a text in braces write {{{{{name}}}}}"
            raise SpecError(key, f"{{{name}}} in {text!r} {problem}")


def make_absolute(argument: str) -> str:
    """Return an argument that is a file of the working directory as an absolute path."""
    path = Path(argument)
    return str(path.absolute()) if path.is_file() else argument
