"""Artifacts: files of a trial, kept where Optuna's artifact store finds them."""

from __future__ import annotations

import mimetypes
import os
import shutil
import uuid
from pathlib import Path

from trialbus.messages import events

#: A folder, as `optuna.artifacts.FileSystemArtifactStore` takes it.
ARTIFACTS_VARIABLE = "TRIALBUS_ARTIFACTS"
_DEFAULT = ".trialbus/artifacts"
_UNKNOWN = "application/octet-stream"


def directory() -> Path:
    """Return the folder of artifacts."""
    return Path(os.environ.get(ARTIFACTS_VARIABLE, _DEFAULT))


def store(path: Path, *, study: str, trial: int, attempt: int) -> events.ArtifactLogged:
    """Copy a file into the folder of artifacts and return what to tell about it.

    Raises:
        OSError: It is not a file that can be read, or the folder cannot be written.

    Source:
        `optuna.artifacts.upload_artifact`.
    """
    folder = directory()
    folder.mkdir(parents=True, exist_ok=True)
    artifact = str(uuid.uuid4())
    draft = folder / f".{artifact}"
    try:
        shutil.copyfile(path, draft)
        draft.replace(folder / artifact)
    finally:
        draft.unlink(missing_ok=True)
    mimetype, encoding = mimetypes.guess_type(path.name)
    return events.ArtifactLogged(
        study=study,
        trial=trial,
        attempt=attempt,
        artifact=artifact,
        filename=path.name,
        mimetype=mimetype or _UNKNOWN,
        encoding=encoding,
    )
