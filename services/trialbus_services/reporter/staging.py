"""Staging of reports: files are written in a staging folder and moved when complete."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna

from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.process import paths
from trialbus_services.reporter.comparison import write_comparison
from trialbus_services.reporter.report import write_report

_PREFIX = ".unfinished-"
_ABANDONED_S = 3600.0


def make_report(study: optuna.Study, directory: Path, options: ReportSettings) -> list[Path]:
    """Write the report of a study and move the complete report into place.

    Where there was no report before, the study's folder appears as a whole. Else its files are
    replaced one by one, the page at last; other files that lie there stay.

    Args:
        study: Any study of Optuna, running or finished; trialbus need not have written it.
        directory: Where the study's folder is made.
        options: What to write.

    Returns:
        The absolute paths of what was written, the page first.
    """
    return _stage(
        lambda folder: write_report(study, folder, options=options, home=directory), directory
    )


def make_comparison(
    studies: Sequence[optuna.Study], directory: Path, options: ReportSettings
) -> list[Path]:
    """Write a comparison of studies, move the complete page into place and return the paths."""
    return _stage(lambda folder: write_comparison(studies, folder, options=options), directory)


def _stage(write: Callable[[Path], list[Path]], directory: Path) -> list[Path]:
    paths.make_directory(directory, "report.dir")
    _remove_abandoned(directory)
    # Beside the others: only within one file system is moving a single step.
    with tempfile.TemporaryDirectory(
        prefix=_PREFIX, dir=directory, ignore_cleanup_errors=True
    ) as staging:
        files = [path.relative_to(staging) for path in write(Path(staging))]
        page = files[0]
        for name in sorted(
            {path.parts[0] for path in files}, key=lambda name: name == page.parts[0]
        ):
            _move(Path(staging), Path(name), directory, last=page)
    return [directory.absolute() / path for path in files]


def _move(staging: Path, name: Path, directory: Path, last: Path) -> None:
    try:
        (staging / name).rename(directory / name)
    except OSError:  # a folder that is there already
        files = [
            path.relative_to(staging) for path in (staging / name).rglob("*") if path.is_file()
        ]
        for file in sorted(files, key=lambda file: file == last):
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (staging / file).replace(directory / file)


def _remove_abandoned(directory: Path) -> None:
    """Remove the staging folders of processes that were killed."""
    for folder in directory.glob(f"{_PREFIX}*"):
        try:
            abandoned = time.time() - folder.stat().st_mtime > _ABANDONED_S
        except FileNotFoundError:
            continue
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)
