"""Figures of a study: the recipes, and the conditions for drawing each."""

# Plotly is typed in part and has no stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import optuna
import optuna.visualization as plots
import plotly.graph_objects as go
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.optimizer.attributes import SPEC
from trialbus_services.reporter.figures import curves, parallel, pareto, timeline
from trialbus_services.reporter.figures.custom import load_custom_recipes
from trialbus_services.reporter.figures.figure import (
    BEST,
    GOOD,
    Figure,
    Recipe,
    describe_failure,
    get_traces,
    recolor,
)
from trialbus_services.reporter.figures.importances import (
    MOST_BARS,
    compute_importances,
    draw_importances,
    make_target,
)
from trialbus_services.reporter.snapshot import Snapshot, is_finite
from trialbus_services.views.formats import LIVE_DIGITS, format_value

logger = logging.getLogger(__name__)

_MOST_PARAMS = 12
_MOST_POINTS = 1000
#: The browser interpolates between the trials, which takes the square of their number.
_MOST_CONTOUR = 120
_MOST_HISTORY = 4000
_MOST_TERMINATOR = 100
_WIDE = 640
_MANY = 1000


def build_figures(study: Snapshot, options: ReportSettings, original: optuna.Study) -> list[Figure]:
    """Build the figures that the settings select, drawn or with the reason why not.

    Args:
        study: The study.
        options: Selects the figures.
        original: The study that users' figures are called with.

    Source:
        `optuna.visualization`, except the curves and the timeline; tests compare both sources.
    """
    recipes = _Recipes(study)
    made = [recipe for make in recipes.list_makers() for recipe in _make_safely(make)]
    chosen = [recipe for recipe in made if options.wants(recipe.key.partition("-")[0])]
    return [recipe.build() for recipe in [*chosen, *load_custom_recipes(original, options.own)]]


def _make_safely(make: Callable[[], Iterable[Recipe]]) -> list[Recipe]:
    """Return the recipes that a function makes; a failure leaves out no other function's."""
    recipes: list[Recipe] = []
    try:
        recipes.extend(make())
    except Exception as error:  # noqa: BLE001 - no figure takes another one along
        key = make.__name__.removeprefix("make_")
        reason = f"It could not be drawn. {describe_failure(error)}"
        logger.warning("no figure %r: %s", key, reason)
        recipes.append(Recipe(key, key.capitalize(), "", go.Figure, missing=reason))
    return recipes


class _Recipes:
    def __init__(self, study: Snapshot) -> None:
        self.study = study
        self.metrics = study.metrics
        self.single = len(self.metrics) == 1
        self.name = self.metrics[0]
        self.target = make_target(study)
        self.complete = study.complete_trials()
        self.finite = [trial for trial in self.complete if is_finite(trial)]
        self.important = list(compute_importances(study)) if len(self.finite) > 1 else []
        params = {name: None for trial in self.finite for name in trial.params}
        self.params = [*self.important, *(name for name in params if name not in self.important)]

        self.none = None if self.finite else _explain_missing(self.complete)
        several = None if len(self.finite) > 1 else "It takes at least two complete trials."
        self.several = self.none or several
        varied = (
            None
            if _has_distinct_values(self.finite)
            else "All complete trials have the same value."
        )
        self.varied = self.several or varied
        no_param = None if params else "No trial has a param."
        self.no_param = self.none or no_param
        two_params = None if len(params) > 1 else "It takes at least two params."
        self.two_params = self.varied or two_params

    def list_makers(self) -> list[Callable[[], Iterable[Recipe]]]:
        """Return a function for each figure, in the order of the page."""
        several = [] if self.single else [self.make_pareto, self.make_hypervolume]
        return [
            *several,
            self.make_history,
            self.make_intermediate,
            self.make_importances,
            self.make_parallel,
            self.make_slices,
            self.make_contour,
            self.make_rank,
            self.make_edf,
            self.make_timeline,
            *([self.make_terminator] if self.single else []),
        ]

    def make_pareto(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `pareto`."""
        sample = self.study.sample(pareto.MOST_POINTS, self.study.best)
        yield Recipe(
            "pareto",
            "Pareto front",
            "No trial on the front is worse than another in every objective.",
            lambda: pareto.draw_pareto(sample),
            self.none or (None if len(self.metrics) <= 3 else "It shows two or three objectives."),
            tall=True,
            note=_note_sample(pareto.MOST_POINTS, self.complete, kept="the front among them"),
        )

    def make_hypervolume(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `hypervolume`."""
        point = pareto.compute_reference_point(self.study) if self.finite else []
        coordinates = ", ".join(format_value(value, LIVE_DIGITS) for value in point)
        yield Recipe(
            "hypervolume",
            "Hypervolume history",
            f"How much of the objective space the front has won, from the point ({coordinates}).",
            lambda: pareto.draw_hypervolume(self.study),
            self.several,
        )

    def make_history(self) -> Iterable[Recipe]:
        """Yield a recipe of the history of each objective."""
        yield Recipe(
            "history",
            "Optimization history" if self.single else f"History of {self.name}",
            f"Each trial's {self.name}{' and the best so far' if self.single else ''}.",
            lambda: self._draw_history(self.target),
            self.none,
            note=_note_sample(_MOST_HISTORY, self.complete, kept=""),
        )
        for i, metric in enumerate(self.metrics[1:], 1):
            target = make_target(self.study, i)
            yield Recipe(
                f"history-{i}",
                f"History of {metric}",
                f"Each trial's {metric}.",
                lambda target=target: self._draw_history(target),
                self.none,
                note=_note_sample(_MOST_HISTORY, self.complete, kept=""),
            )

    def _draw_history(self, target: dict[str, Any]) -> go.Figure:
        figure = plots.plot_optimization_history(self.study, **target)
        for trace in get_traces(figure):
            n = len(trace.x)
            if n > _MOST_HISTORY:
                indices = [i * n // _MOST_HISTORY for i in range(_MOST_HISTORY)]
                trace.update({axis: [trace[axis][i] for i in indices] for axis in ("x", "y")})
            if trace.mode == "lines":
                trace.update(line={"color": BEST, "shape": "hv", "width": 2})
            elif trace.showlegend is None:
                trace.update(marker={"color": GOOD, "size": 6 if n < _MANY else 3})
        return figure

    def make_intermediate(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `intermediate`."""
        spec: dict[str, Any] = self.study.user_attrs.get(SPEC) or {}
        by: dict[str, str] = spec.get("prune_by") or {}
        metric = by.get("metric") or self.name
        reported = curves.get_reported_trials(self.study)
        yield Recipe(
            "intermediate",
            "Intermediate values",
            f"{metric} at every step; the best trial highlighted, pruned ones dotted and grey.",
            lambda: curves.draw_curves(self.study, metric),
            None if reported else "No intermediate value was reported.",
            note=_note_sample(curves.MOST_CURVES, reported, noun="curves"),
        )

    def make_importances(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `importances`."""
        explained = "an objective" if len(self.metrics) > 1 else self.name
        n = len(self.params)
        yield Recipe(
            "importances",
            "Param importances",
            f"How much of the spread of {explained} each param explains (PED-ANOVA).",
            lambda: draw_importances(self.study),
            self.two_params,
            note=f"The first {MOST_BARS} of {n} params." if n > MOST_BARS else None,
        )

    def make_parallel(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `parallel`."""
        sample = self.study.sample(parallel.MOST_LINES, self.study.best)
        yield Recipe(
            "parallel",
            "Parallel coordinates",
            "A line for each complete trial, from grey through blue to orange for the best.",
            lambda: parallel.draw_parallel(sample, self._select_params(sample)),
            self.varied or self.no_param,
            width=100 * (len(self._select_params(sample)) + len(self.metrics) + 1),
            note=_note_sample(parallel.MOST_LINES, self.complete) or self._note_params(),
        )

    def make_slices(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `slices`."""
        sample = self.study.sample(_MOST_POINTS, self.study.best)

        def draw() -> go.Figure:
            return recolor(
                plots.plot_slice(sample, params=self._select_params(sample), **self.target)
            )

        yield Recipe(
            "slices",
            "Slices" if self.single else f"Slices of {self.name}",
            f"{self.name} over each param; early trials are grey, late ones orange.",
            draw,
            self.no_param,
            width=180 * len(self._select_params(sample)),
            note=_note_sample(_MOST_POINTS, self.complete) or self._note_params(),
        )

    def make_contour(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `contour`."""
        sample = self.study.sample(_MOST_CONTOUR, self.study.best)
        yield Recipe(
            "contour",
            "Contour" if self.single else f"Contour of {self.name}",
            f"{self.name} over the two most important params.",
            lambda: recolor(
                plots.plot_contour(sample, params=self.important[:2], **self.target),
                low_is_best=self.study.directions[0] is StudyDirection.MINIMIZE,
            ),
            self._explain_missing_pair(),
            tall=True,
            width=_WIDE,
            note=_note_sample(_MOST_CONTOUR, self.complete),
        )

    def make_rank(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `rank`."""
        sample = self.study.sample(_MOST_POINTS // 2, self.study.best)
        yield Recipe(
            "rank",
            "Rank" if self.single else f"Rank by {self.name}",
            f"Trials over the most important params, coloured by the rank of {self.name}.",
            lambda: plots.plot_rank(sample, params=self.important[:3], **self.target),
            self._explain_missing_pair(),
            tall=True,
            width=_WIDE,
            note=_note_sample(_MOST_POINTS // 2, self.complete),
        )

    def make_edf(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `edf`."""
        yield Recipe(
            "edf",
            "Empirical distribution",
            f"Share of the complete trials at or below each {self.name}.",
            lambda: plots.plot_edf(self.study, **self.target),
            self.several,
        )

    def make_timeline(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `timeline`."""
        started = timeline.get_started_trials(self.study)
        n = timeline.MOST_BARS
        yield Recipe(
            "timeline",
            "Timeline",
            "When and where each trial ran, and how it ended.",
            lambda: timeline.draw_timeline(self.study),
            None if started else "No trial is known to have run.",
            note=f"The last {n:,} of {len(started):,} trials." if len(started) > n else None,
        )

    def make_terminator(self) -> Iterable[Recipe]:
        """Yield the recipe of the figure `terminator`."""

        def draw() -> go.Figure:
            # Optuna prints a progress bar.
            with contextlib.redirect_stderr(io.StringIO()):
                return plots.plot_terminator_improvement(self.study)

        many = len(self.finite) > _MOST_TERMINATOR
        most = f"It takes too long for more than {_MOST_TERMINATOR} complete trials."
        yield Recipe(
            "terminator",
            "Terminator improvement",
            f"How much {self.name} might still gain from more trials.",
            draw,
            self.none or (most if many else None),
        )

    def _explain_missing_pair(self) -> str | None:
        no_pair = None if len(self.important) > 1 else "No two params explain the value."
        return self.two_params or no_pair

    def _select_params(self, sample: Snapshot) -> list[str]:
        """Return the most important params of a sample, which get an axis."""
        sampled = {
            name for trial in sample.complete_trials() if is_finite(trial) for name in trial.params
        }
        return [name for name in self.params if name in sampled][:_MOST_PARAMS]

    def _note_params(self) -> str | None:
        n = len(self.params)
        return f"The first {_MOST_PARAMS} of {n} params." if n > _MOST_PARAMS else None


def _explain_missing(complete: Sequence[FrozenTrial]) -> str:
    return "No complete trial has a finite value." if complete else "No trial was completed."


def _has_distinct_values(finite: Sequence[FrozenTrial]) -> bool:
    return len({trial.values[0] for trial in finite}) > 1


def _note_sample(
    most: int,
    trials: Sequence[FrozenTrial],
    *,
    noun: str = "complete trials",
    kept: str = "the best among them",
) -> str | None:
    if len(trials) <= most:
        return None
    return f"{most:,} of {len(trials):,} {noun}, evenly spaced{', ' + kept if kept else ''}."
