"""Figures of users: registered by an installed package, or named in the config."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial, update_wrapper
from importlib.metadata import entry_points
from typing import Any

import optuna
import plotly.graph_objects as go

from trialbus.errors import SpecError
from trialbus.study.user_code import load_function
from trialbus_services.reporter.figures.figure import Recipe, describe_failure, require_figure

logger = logging.getLogger(__name__)

GROUP = "trialbus.figures"
_ABOUT = "A figure of your own."
_Draw = Callable[[optuna.Study], go.Figure]


def load_custom_recipes(
    study: optuna.Study, calls: Mapping[str, Mapping[str, Any]]
) -> list[Recipe]:
    """Load users' figures: the entry points of `GROUP`, and `calls` of the config.

    The function is called with the study and returns a Plotly figure. The first line of its
    docstring is what the page says about it.

    Args:
        study: Handed to each; an ordinary `optuna.Study`.
        calls: By title, mappings with `_target_` and further arguments.

    Example:
        In the `pyproject.toml` of a package with figures:

            [project.entry-points."trialbus.figures"]
            loss_over_size = "my_package.figures:loss_over_size"
    """
    loaders: list[tuple[str, Callable[[], _Draw]]] = [
        (entry.name.replace("_", " ").capitalize(), entry.load)
        for entry in sorted(entry_points(group=GROUP))
    ]
    loaders += [(title, partial(_load_figure, title, call)) for title, call in calls.items()]
    return [_create_recipe(study, title, load) for title, load in loaders]


def _load_figure(title: str, call: Mapping[str, Any]) -> _Draw:
    """Load the function of a config entry, with the entry's arguments bound."""
    function = load_function(f"report.own.{title}._target_", call["_target_"])
    arguments = {name: value for name, value in call.items() if name != "_target_"}
    return update_wrapper(partial(function, **arguments), function)


def _create_recipe(study: optuna.Study, title: str, load: Callable[[], _Draw]) -> Recipe:
    key = "own-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "figure")
    try:
        function = load()
    except BaseException as error:  # noqa: BLE001 - users' code
        reason = str(error) if isinstance(error, SpecError) else describe_failure(error)
        logger.warning("no figure %r: %s", title, reason)
        problem = f"It could not be loaded. {reason}"
        return Recipe(key, title, _ABOUT, go.Figure, missing=problem)
    doc = (function.__doc__ or "").strip()
    about = doc.splitlines()[0] if doc else _ABOUT
    return Recipe(key, title, about, lambda: _draw(function, study))


def _draw(function: _Draw, study: optuna.Study) -> go.Figure:
    figure: object = function(study)
    # Here a failure leaves out this figure alone; when the page is rendered, the whole page.
    require_figure(figure).to_json(engine="json")
    return require_figure(figure)
