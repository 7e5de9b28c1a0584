"""The configuration that a study's trials begin with, where it is a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trialbus.errors import SpecError
from trialbus_services.config.yaml_file import read_mapping

_SUFFIXES = (".yaml", ".yml")


def read(base: Any) -> Any:
    """Return a study's `base_config`, read from its file where it is the path of a YAML file.

    A path is relative to the working directory. What the file refers to by `${...}` is filled in.

    Raises:
        SpecError: The file cannot be read, or holds no mapping; names the file.
    """
    if not (isinstance(base, str) and base.endswith(_SUFFIXES)):
        return base
    try:
        return read_mapping(Path(base))
    except SpecError as error:
        raise SpecError("study.base_config", f"{error.key!r} {error.problem}") from None
