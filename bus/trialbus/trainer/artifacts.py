"""Artifacts: files of a trial, copied into a folder of Optuna's `FileSystemArtifactStore`."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from trialbus.messages import events
from trialbus.protocol.private_folder import make_private_folder, open_private_file
from trialbus.protocol.start_folder import resolve_from_start

#: Environment variable with the folder of artifacts.
ARTIFACTS_VARIABLE = "TRIALBUS_ARTIFACTS"
_DEFAULT = ".trialbus/artifacts"
_UNKNOWN_MIMETYPE = "application/octet-stream"


def locate_artifacts() -> Path:
    """Return the absolute path of the folder of artifacts."""
    return resolve_from_start(os.environ.get(ARTIFACTS_VARIABLE, _DEFAULT))


def store_artifact(path: Path, *, study: str, trial: int, attempt: int) -> events.ArtifactLogged:
    """Copy a file into the folder of artifacts and return the event that announces the copy.

    Raises:
        OSError: The file cannot be read, or the folder cannot be written.

    Source:
        `optuna.artifacts.upload_artifact`.
    """
    folder = locate_artifacts()
    is_private = ARTIFACTS_VARIABLE not in os.environ
    if is_private:
        make_private_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    artifact = str(uuid.uuid4())
    draft = folder / f".{artifact}"
    try:
        if is_private:
            os.close(open_private_file(draft))
        shutil.copyfile(path, draft)
        draft.replace(folder / artifact)
    finally:
        draft.unlink(missing_ok=True)
    import mimetypes

    mimetype, encoding = mimetypes.guess_type(path.name)
    return events.ArtifactLogged(
        study=study,
        trial=trial,
        attempt=attempt,
        artifact=artifact,
        filename=path.name,
        mimetype=mimetype or _UNKNOWN_MIMETYPE,
        encoding=encoding,
    )
