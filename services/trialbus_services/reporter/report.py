"""Write the report of a study: an HTML page and the exports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from trialbus_services.config.report_settings import FILES, ReportSettings
from trialbus_services.optimizer.recorded_spec import read_spec
from trialbus_services.process.paths import locate_report_directory
from trialbus_services.reporter import best_params, exports, page
from trialbus_services.reporter.best_params import write_params
from trialbus_services.reporter.figures.figure import describe_failure
from trialbus_services.reporter.figures.importances import compute_importances
from trialbus_services.reporter.figures.study_figures import build_figures
from trialbus_services.reporter.file_replacement import replace_file
from trialbus_services.reporter.images import write_images
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import StudySummary, summarize_study
from trialbus_services.reporter.table import Table, tabulate

logger = logging.getLogger(__name__)

_DEFAULT = ReportSettings()


def write_report(
    study: optuna.Study,
    directory: Path,
    *,
    options: ReportSettings = _DEFAULT,
    metrics: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
    home: Path | None = None,
) -> list[Path]:
    """Write `report.html` and the exports of a study into a folder named after the study.

    The study may be any of Optuna's, running or finished, with or without what trialbus notes in
    it. A file is replaced only when its successor is complete, so a reader never sees half of one.
    What cannot be written (pictures without a browser, Parquet without pyarrow) is said in the log
    and at the end of the page, and keeps nothing else from being written.

    Args:
        study: Only read, and its trials only once.
        directory: Where the study's folder is made.
        options: What to write; the section `report` of the config is one.
        metrics: Name of each objective; None looks for them in the study.
        config: What the study was run with, to be shown; None looks for it in the study.
        home: Where the study's folder will be in the end; None for `directory`.

    Returns:
        What was written, the page first. Without a complete trial there are no best params.

    Example:
        >>> study = optuna.load_study(study_name="digits", storage=url)  # doctest: +SKIP
        >>> options = ReportSettings(images=["png"])
        >>> write_report(study, Path("reports"), options=options)  # doctest: +SKIP
    """
    snapshot = Snapshot(study, metrics)
    summary = summarize_study(snapshot, config)
    table = tabulate(snapshot)
    figures = build_figures(snapshot, options, study)
    folder = locate_report_directory(directory, study.study_name)
    folder.mkdir(parents=True, exist_ok=True)
    home = locate_report_directory(home or directory, study.study_name).absolute()
    paths, notes = _write_files(folder, _list_files(snapshot, summary, table, home, options))
    pictures, problem = write_images(figures, folder / "figures", options.images)
    if problem:
        notes.append(problem)
    for note in notes:
        logger.warning("report of study %r: %s", study.study_name, note)
    html = page.render_report(summary, figures, table, plotly_js=options.plotly_js, notes=notes)
    return [*page.write_page(folder / "report.html", html, options), *paths, *pictures]


def _list_files(
    study: Snapshot, summary: StudySummary, table: Table, home: Path, options: ReportSettings
) -> Iterator[tuple[str, Callable[[], Mapping[str, str | bytes]]]]:
    """Yield each file beside the page, with the function that returns contents by name."""

    def describe_best() -> Mapping[str, str]:
        return write_params(summary.best[0], summary, read_spec(study.user_attrs), home)

    def summarize() -> str:
        return exports.to_markdown(summary, compute_importances(study))

    files: dict[str, tuple[str, Callable[[], Mapping[str, str | bytes]]]] = {
        "csv": ("trials.csv", lambda: {"trials.csv": exports.to_csv(table)}),
        "parquet": ("trials.parquet", lambda: {"trials.parquet": exports.to_parquet(table)}),
        "json": ("study.json", lambda: {"study.json": exports.to_json(study, summary)}),
        "params": (best_params.YAML, describe_best),
        "summary": ("summary.md", lambda: {"summary.md": summarize()}),
    }
    for format_ in FILES:
        if format_ in options.files and (format_ != "params" or summary.best):
            yield files[format_]


def _write_files(
    folder: Path, files: Iterable[tuple[str, Callable[[], Mapping[str, str | bytes]]]]
) -> tuple[list[Path], list[str]]:
    """Write files, and return the paths and a note for each file that could not be made."""
    paths: list[Path] = []
    notes: list[str] = []
    for name, make in files:
        try:
            contents = make()
        except ImportError:
            notes.append(f"No {name}: the package pyarrow is not installed.")
        except Exception as error:
            logger.debug("no %s", name, exc_info=True)
            notes.append(f"No {name}: {describe_failure(error)}.")
        else:
            paths += [replace_file(folder / file, text) for file, text in contents.items()]
    return paths, notes
