"""Search path of trainings: which program a bare name such as `python` means."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_ACTIVATED = ("VIRTUAL_ENV", "CONDA_PREFIX")


def build_search_path(environment: Mapping[str, str]) -> str:
    """Return the `PATH` for a training, given the environment of the worker.

    An activated environment stays as it is. Without an activated environment the folder of the
    Python that runs this process comes first, so that `python` finds the same packages.
    """
    path = environment.get("PATH", os.defpath)
    if any(environment.get(name) for name in _ACTIVATED):
        return path
    return os.pathsep.join([str(Path(sys.executable).parent), path])
