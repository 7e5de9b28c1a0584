"""YAML files of users that hold a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trialbus.errors import SpecError
from trialbus.study.validation import is_mapping


def read_mapping(path: Path) -> Mapping[str, Any]:
    """Read a YAML file that holds a mapping, and resolve references such as `${...}`.

    Raises:
        SpecError: The file cannot be read, or holds no mapping; its key is the path.
    """
    # Imported where a file is read: a service that its launcher started reads none.
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        data = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise SpecError(str(path), f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise SpecError(str(path), f"cannot be read: {' '.join(str(error).split())}") from None
    if not is_mapping(data):
        raise SpecError(str(path), f"holds {type(data).__name__} (expected a mapping)")
    return data
