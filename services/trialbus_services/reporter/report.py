"""Write the report of a study: an HTML page and the exports."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.process.paths import locate_report_directory
from trialbus_services.reporter import exports, page
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
    paths, notes = _write_files(folder, snapshot, summary, table, options)
    pictures, problem = write_images(figures, folder / "figures", options.images)
    if problem:
        notes.append(problem)
    for note in notes:
        logger.warning("report of study %r: %s", study.study_name, note)
    html = page.render_report(summary, figures, table, plotly_js=options.plotly_js, notes=notes)
    return [*page.write_page(folder / "report.html", html, options), *paths, *pictures]


def _write_files(
    folder: Path, study: Snapshot, summary: StudySummary, table: Table, options: ReportSettings
) -> tuple[list[Path], list[str]]:
    formats = set(options.files)
    paths: list[Path] = []
    notes: list[str] = []
    if "csv" in formats:
        paths.append(replace_file(folder / "trials.csv", exports.to_csv(table)))
    if "parquet" in formats:
        try:
            paths.append(replace_file(folder / "trials.parquet", exports.to_parquet(table)))
        except ImportError:
            notes.append("No trials.parquet: the package pyarrow is not installed.")
    if "json" in formats:
        paths.append(replace_file(folder / "study.json", exports.to_json(study, summary)))
    if "params" in formats and summary.best:
        params = exports.to_params_yaml(summary.best[0], summary, folder.name)
        paths.append(replace_file(folder / "best_params.yaml", params))
    if "summary" in formats:
        markdown = exports.to_markdown(summary, compute_importances(study))
        paths.append(replace_file(folder / "summary.md", markdown))
    return paths, notes
