"""Write the report of a study: the page, and the same as files for programs."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import optuna
import yaml

from trialbus_services.reporter import facts, figures, page


def write_report(
    study: optuna.Study,
    directory: Path,
    *,
    metrics: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `report.html`, `trials.csv` and `best_params.yaml` into a folder named after the study.

    A file is replaced only when its successor is complete, so a reader never sees half of one.

    Args:
        study: Any Optuna study, running or finished.
        directory: Where the study's folder is made.
        metrics: Name of each objective; None numbers them.
        config: What the study was run with, to be shown.

    Returns:
        What was written, the page first. Without a complete trial there are no best params.

    Example:
        >>> study = optuna.load_study(study_name="digits", storage=url)  # doctest: +SKIP
        >>> write_report(study, Path("reports"))  # doctest: +SKIP
    """
    trials = study.get_trials(deepcopy=False)
    known = facts.gather(study, trials, metrics)
    table = facts.rows(trials, known.metrics)
    html = page.render(known, figures.build(study, trials, known.metrics), table, config)
    folder = directory / (re.sub(r"[^\w.-]+", "_", study.study_name).strip(".") or "study")
    folder.mkdir(parents=True, exist_ok=True)
    written = [_write(folder / "report.html", lambda file: file.write(html))]
    written.append(
        _write(
            folder / "trials.csv", lambda file: csv.writer(file).writerows([table[0], *table[1]])
        )
    )
    if known.best:
        best = yaml.safe_dump(known.best[0].params, sort_keys=False)
        written.append(_write(folder / "best_params.yaml", lambda file: file.write(best)))
    return written


def _write(path: Path, fill: Callable[[IO[str]], object]) -> Path:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        fill(file)
    unfinished.replace(path)
    return path
