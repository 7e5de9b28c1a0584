"""The configuration that a study's trials begin with, where it is a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trialbus.errors import SpecError
from trialbus.study.spec import is_mapping

_KEY = "study.base_config"
_SUFFIXES = (".yaml", ".yml")


def read(base: Any) -> Any:
    """Return a study's `base_config`, read where it is the path of a YAML file.

    A path is relative to the working directory. What the file refers to by `${...}` is filled in.

    Raises:
        SpecError: The file cannot be read, or holds no mapping; names it.
    """
    if not (isinstance(base, str) and base.endswith(_SUFFIXES)):
        return base
    try:
        found = OmegaConf.to_container(OmegaConf.load(Path(base)), resolve=True)
    except OSError as error:
        raise SpecError(_KEY, f"{base!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise SpecError(_KEY, f"{base!r} cannot be read: {' '.join(str(error).split())}") from None
    if not is_mapping(found):
        raise SpecError(_KEY, f"{base!r} holds {type(found).__name__} (expected a mapping)")
    return found
