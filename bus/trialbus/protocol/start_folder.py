"""The folder from which relative paths of the environment count, wherever the process has gone."""

from __future__ import annotations

import os
from pathlib import Path

#: Environment variable of a training, set by the worker: the folder that the worker runs in.
FOLDER_VARIABLE = "TRIALBUS_FOLDER"


def _find_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:  # the folder was removed
        return Path()


_start_folder = _find_folder()


def resolve_from_start(path: str | os.PathLike[str]) -> Path:
    """Return a path of the environment, or a default path, as an absolute path.

    A relative path counts from `$TRIALBUS_FOLDER`, and without this variable from the folder in
    which the process was when trialbus was imported: Hydra and others change the folder later.
    """
    return Path(os.environ.get(FOLDER_VARIABLE) or _start_folder) / path
