"""HTML pages of reports and comparisons."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

import jinja2
import plotly.graph_objects as go
import plotly.io
import plotly.offline
import yaml
from markupsafe import Markup
from optuna.trial import FrozenTrial

from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.reporter.figures.figure import Figure
from trialbus_services.reporter.file_replacement import replace_file
from trialbus_services.reporter.study_summary import StudySummary
from trialbus_services.reporter.table import Table
from trialbus_services.views.formats import format_duration, format_value

PLOTLY = "plotly.min.js"
_LIBRARIES = ("trialbus", "optuna", "plotly", "pyzmq", "msgspec", "hydra-core")
_MOST_BEST = 50
_MOST_FAILURES = 20
_LONGEST_CELL = 300  # characters of a cell in the table of trials


def render_report(
    summary: StudySummary,
    figures: Sequence[Figure],
    table: Table,
    *,
    plotly_js: Literal["inside", "beside"] = "inside",
    notes: Sequence[str] = (),
) -> str:
    """Render the HTML page of a study.

    Args:
        summary: Summary of the study.
        figures: In the order they are shown.
        table: All trials.
        plotly_js: Whether plotly.js is in the page, or read from `PLOTLY` beside it.
        notes: Sentences for the end of the page.
    """
    return _render(
        "report.html.j2",
        figures,
        plotly_js,
        title=f"{summary.name} · study report",
        summary=summary,
        table=table,
        notes=notes,
        best_params=list(dict.fromkeys(name for trial in summary.best for name in trial.params)),
        most_best=_MOST_BEST,
        most_failures=_MOST_FAILURES,
    )


def render_comparison(
    studies: Sequence[StudySummary],
    figures: Sequence[Figure],
    *,
    plotly_js: Literal["inside", "beside"] = "inside",
    warnings: Sequence[str] = (),
) -> str:
    """Render the HTML page of several studies; see `render_report`."""
    return _render(
        "comparison.html.j2",
        figures,
        plotly_js,
        title="Comparison of studies",
        studies=studies,
        notes=(),
        warnings=warnings,
    )


def write_page(path: Path, html: str, options: ReportSettings) -> list[Path]:
    """Write a page, and plotly.js beside the page if `options` say so.

    Returns:
        The paths written, the page first.
    """
    paths = [replace_file(path, html)]
    if options.plotly_js == "beside":
        script = plotly.offline.get_plotlyjs()
        paths.append(replace_file(path.with_name(PLOTLY), script))
    return paths


def _render(template: str, figures: Sequence[Figure], plotly_js: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trialbus_services.reporter", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "number": format_value,
        "duration": format_duration,
        "plot": _render_plot,
        "trials": _render_trials,
        "yaml": _render_yaml,
    }
    cast("dict[str, Any]", environment.filters).update(filters)
    inside = plotly_js == "inside"
    return environment.get_template(template).render(
        figures=figures,
        source=_read_source,
        formats_source=_read_formats_source,
        versions={"python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
        plotly_js=Markup(plotly.offline.get_plotlyjs()) if inside else None,  # noqa: S704 - from the plotly package
        **values,
    )


def _read_source(name: str) -> Markup:
    text = (files("trialbus_services.reporter") / "templates" / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - our own file


def _read_formats_source() -> Markup:
    """Return the script of the text formats, which is a module for the live page."""
    text = (files("trialbus_services.views") / "formats.js").read_text(encoding="utf-8")
    return Markup(text.replace("export ", ""))  # noqa: S704 - our own file


def _render_plot(figure: go.Figure) -> Markup:
    return _escape_json(str(plotly.io.to_json(figure, engine="json", remove_uids=True)))


def _render_trials(table: Table, best: Sequence[FrozenTrial]) -> Markup:
    rows = [[_convert_cell(value) for value in row] for row in table.rows]
    data = {"header": table.header, "rows": rows, "best": [trial.number for trial in best]}
    return _escape_json(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def _convert_cell(value: Any) -> Any:
    """Convert a value to a type of JSON: text for a float that is not finite; long text is cut."""
    if isinstance(value, float):
        if math.isfinite(value):
            # The page shows six digits, and sorts by a few more.
            return float(f"{value:.9g}")
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int | None):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]} …"


def _escape_json(text: str) -> Markup:
    """Escape JSON for a script element, so that no string ends the element."""
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _render_yaml(value: Any) -> str:
    # Through JSON: what users put into a study's attributes came from there.
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip()
