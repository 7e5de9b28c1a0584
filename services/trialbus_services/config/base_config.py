"""The configuration that all trials of a study begin with, read where it is a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trialbus.errors import SpecError
from trialbus_services.config.yaml_file import read_mapping

_SUFFIXES = (".yaml", ".yml")


def read_base_config(base: Any) -> Any:
    """Return the `base_config` of a study; the content of the file if it is a path of YAML.

    A path is relative to the working directory. References in the file, `${...}`, are filled in.

    Raises:
        SpecError: The file cannot be read, or holds no mapping; names the file.
    """
    if not (isinstance(base, str) and base.endswith(_SUFFIXES)):
        return base
    try:
        return read_mapping(Path(base))
    except SpecError as error:
        raise SpecError("study.base_config", f"{error.key!r} {error.problem}") from None
