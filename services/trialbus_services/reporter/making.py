"""Make reports so that nobody sees half of one."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from trialbus.spec import is_mapping
from trialbus_services.reporter.report import write_report

_PREFIX = ".unfinished-"
_ABANDONED_S = 3600.0


def make_report(study: optuna.Study, directory: Path) -> list[Path]:
    """Write the report of a study and move it into place when all of it is there.

    Where there was no report before, the study's folder appears as a whole. Else its files are
    replaced one by one, the page at last; other files that lie there stay.

    Args:
        study: Any study of Optuna, running or finished; trialbus need not have written it.
        directory: Where the study's folder is made.

    Returns:
        The absolute paths of what was written, the page first.
    """
    found = study.user_attrs.get("trialbus:spec")
    spec: Mapping[str, Any] = found if is_mapping(found) else {}
    metrics = [objective["metric"] for objective in spec.get("objectives", [])]
    directory.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(directory)
    # Beside the others: only within one file system is moving a single step.
    with tempfile.TemporaryDirectory(
        prefix=_PREFIX, dir=directory, ignore_cleanup_errors=True
    ) as made:
        paths = write_report(study, Path(made), metrics=metrics or None, config=spec or None)
        written = [path.relative_to(made) for path in paths]
        for name in dict.fromkeys(path.parts[0] for path in written):
            _move(Path(made) / name, directory / name, last=Path(*written[0].parts[1:]))
    return [directory.absolute() / path for path in written]


def _move(made: Path, place: Path, last: Path) -> None:
    try:
        made.rename(place)
    except OSError:  # there is one already
        files = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda file: file == last):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (made / file).replace(place / file)


def _remove_abandoned(directory: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    for folder in directory.glob(f"{_PREFIX}*"):
        try:
            abandoned = time.time() - folder.stat().st_mtime > _ABANDONED_S
        except FileNotFoundError:
            continue
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)
