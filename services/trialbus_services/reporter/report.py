"""Write the report of a study: the page, and the same as files for programs."""

# Plotly has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import plotly.offline

from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.process.paths import report_directory
from trialbus_services.reporter import exports, page
from trialbus_services.reporter.atomic_files import write
from trialbus_services.reporter.figures.importances import importances
from trialbus_services.reporter.figures.recipes import build
from trialbus_services.reporter.images import write_images
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.summary import Facts, gather
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
    """Write `report.html` and the files beside it into a folder named after the study.

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
    facts = gather(snapshot, config)
    table = tabulate(snapshot)
    figures = build(snapshot, options, study)
    folder = report_directory(directory, study.study_name)
    folder.mkdir(parents=True, exist_ok=True)
    paths, notes = _write_files(folder, snapshot, facts, table, options)
    pictures, problem = write_images(figures, folder / "figures", options.images)
    if problem:
        notes.append(problem)
    for note in notes:
        logger.warning("report of study %r: %s", study.study_name, note)
    html = page.render_report(facts, figures, table, plotly_js=options.plotly_js, notes=notes)
    written = [write(folder / "report.html", html)]
    if options.plotly_js == "beside":
        written.append(write(folder / page.PLOTLY, plotly.offline.get_plotlyjs()))
    return [*written, *paths, *pictures]


def _write_files(
    folder: Path, study: Snapshot, facts: Facts, table: Table, options: ReportSettings
) -> tuple[list[Path], list[str]]:
    wanted = set(options.files)
    paths: list[Path] = []
    notes: list[str] = []
    if "csv" in wanted:
        paths.append(write(folder / "trials.csv", exports.as_csv(table)))
    if "parquet" in wanted:
        try:
            paths.append(write(folder / "trials.parquet", exports.as_parquet(table)))
        except ImportError:
            notes.append("No trials.parquet: the package pyarrow is not installed.")
    if "json" in wanted:
        paths.append(write(folder / "study.json", exports.as_json(study, facts)))
    if "params" in wanted and facts.best:
        params = exports.as_params(facts.best[0], facts, folder.name)
        paths.append(write(folder / "best_params.yaml", params))
    if "summary" in wanted:
        summary = exports.as_summary(facts, importances(study))
        paths.append(write(folder / "summary.md", summary))
    return paths, notes
