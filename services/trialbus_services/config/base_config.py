"""The base configuration of a study, read from a YAML file or passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trialbus.errors import SpecError
from trialbus_services.config.yaml_file import read_mapping

_SUFFIXES = (".yaml", ".yml")


def read_base_config(base_config: Any) -> Any:
    """Return the `base_config` of a study, with the path of a YAML file replaced by the content.

    A path is relative to the working directory. References in the file, `${...}`, are filled in.
    Any other value is returned unchanged.

    Raises:
        SpecError: The file cannot be read, or holds no mapping; names the file.
    """
    if not (isinstance(base_config, str) and base_config.endswith(_SUFFIXES)):
        return base_config
    try:
        return read_mapping(Path(base_config))
    except SpecError as error:
        raise SpecError("study.base_config", f"{error.key!r} {error.problem}") from None
