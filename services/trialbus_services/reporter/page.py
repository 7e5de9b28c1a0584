"""The report's page: facts and figures as one HTML document."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import jinja2
import plotly.io
import plotly.offline
import yaml
from markupsafe import Markup

from trialbus_services.reporter.facts import Facts
from trialbus_services.reporter.figures import Figure

_LIBRARIES = ("trialbus", "optuna", "plotly", "pyzmq", "msgspec", "hydra-core")


def render(
    facts: Facts,
    figures: Sequence[Figure],
    table: tuple[list[str], list[list[Any]]],
    config: Mapping[str, Any] | None,
) -> str:
    """Return a page that needs nothing beside itself: plotly.js is in it, once.

    Args:
        facts: What the study found.
        figures: In the order they are shown.
        table: Names of the columns, and the rows, of the table of trials.
        config: What the study was run with.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trialbus_services.reporter", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "duration": _duration}
    return environment.get_template("page.html.j2").render(
        facts=facts,
        figures=[(figure, _json(figure)) for figure in figures],
        header=table[0],
        rows=table[1],
        config=yaml.safe_dump(dict(config), sort_keys=False) if config else None,
        versions={"python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
        plotly_js=Markup(plotly.offline.get_plotlyjs()),  # noqa: S704 - from the plotly package
    )


def _json(figure: Figure) -> Markup | None:
    if figure.figure is None:
        return None
    # No text in it can then end the script element.
    text = str(plotly.io.to_json(figure.figure, engine="json"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _duration(value: timedelta | None) -> str:
    return "unknown" if value is None else str(timedelta(seconds=round(value.total_seconds())))
