"""Write a page that compares several studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import optuna

from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.reporter import page
from trialbus_services.reporter.figures.comparison import build_comparison
from trialbus_services.reporter.images import write_images
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import StudySummary, summarize_study

_DEFAULT = ReportSettings()


def write_comparison(
    studies: Sequence[optuna.Study], directory: Path, *, options: ReportSettings = _DEFAULT
) -> list[Path]:
    """Write `comparison.html`: histories, distributions and importances of studies side by side.

    Studies of the same name, from different storages, are numbered. Those with several objectives
    are in the table, and in no figure.

    Args:
        studies: Two or more.
        directory: Where the page is written; made if need be.
        options: Of these, `plotly_js` and `images` are heeded.

    Returns:
        What was written, the page first.

    Raises:
        ValueError: There are fewer than two studies.

    Example:
        >>> url = "sqlite:///studies.db"
        >>> studies = [optuna.load_study(study_name=n, storage=url) for n in ("tpe", "random")]
        ... # doctest: +SKIP
        >>> write_comparison(studies, Path("reports"))  # doctest: +SKIP
    """
    if len(studies) < 2:
        raise ValueError(f"{len(studies)} studies cannot be compared (expected two or more)")
    snapshots = _read_snapshots(studies)
    summaries = [summarize_study(snapshot) for snapshot in snapshots]
    figures = build_comparison(snapshots)
    directory.mkdir(parents=True, exist_ok=True)
    pictures, problem = write_images(figures, directory / "comparison", options.images)
    warnings = [*_list_warnings(summaries), *([problem] if problem else [])]
    html = page.render_comparison(
        summaries, figures, plotly_js=options.plotly_js, warnings=warnings
    )
    return [*page.write_page(directory / "comparison.html", html, options), *pictures]


def _read_snapshots(studies: Sequence[optuna.Study]) -> list[Snapshot]:
    count = Counter(study.study_name for study in studies)
    seen: Counter[str] = Counter()
    snapshots: list[Snapshot] = []
    for study in studies:
        name = study.study_name
        seen[name] += 1
        snapshots.append(
            Snapshot(study, name=f"{name} ({seen[name]})" if count[name] > 1 else name)
        )
    return snapshots


def _list_warnings(summaries: Sequence[StudySummary]) -> list[str]:
    warnings = [
        f"{study.name} has several objectives: it is in the table only."
        for study in summaries
        if len(study.metrics) > 1
    ]
    goals = {
        f"{study.directions[0]} {study.metrics[0]}"
        for study in summaries
        if len(study.metrics) == 1
    }
    if len(goals) > 1:
        warnings.append(f"These studies have different objectives: {', '.join(sorted(goals))}.")
    return warnings
