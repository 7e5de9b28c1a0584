"""Define-by-run: what a trial has of a study whose training asks for its params itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from trialbus.messages import events
from trialbus.study.search_space import Param
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import SUGGESTIONS
from trialbus_services.optimizer.distributions import make_param


def make_suggestions(relative: Mapping[str, tuple[Any, BaseDistribution]]) -> dict[str, Any]:
    """Return the attributes of a trial that keep what the sampler chose together for it.

    Empty where the sampler chose nothing beforehand.
    """
    suggestions = {
        name: events.SuggestedValue(
            param=make_param(distribution),
            value=distribution.to_external_repr(distribution.to_internal_repr(value)),
        )
        for name, (value, distribution) in relative.items()
    }
    return keep_suggestions(suggestions)


def keep_suggestions(suggestions: Mapping[str, events.SuggestedValue]) -> dict[str, Any]:
    """Return the attributes of a trial that keep suggestions; empty without a suggestion."""
    return {SUGGESTIONS: msgspec.to_builtins(dict(suggestions))} if suggestions else {}


def find_params(trials: Sequence[FrozenTrial]) -> dict[str, Param]:
    """Return the params that trials have, by name, each as the newest trial asked for the param."""
    distributions = {name: d for trial in trials for name, d in trial.distributions.items()}
    params: dict[str, Param] = {}
    for name, distribution in distributions.items():
        with suppress(ValueError):  # of a trial that another program added
            params[name] = make_param(distribution)
    return params


def describe_define_by_run(
    spec: StudySpec, attributes: Mapping[str, Any]
) -> events.DefineByRun | None:
    """Return what a training that asks for its params gets with the trial; None for others.

    Args:
        spec: Specification of the study.
        attributes: User attributes of the trial.
    """
    if not spec.define_by_run:
        return None
    suggestions = msgspec.convert(attributes.get(SUGGESTIONS, {}), dict[str, events.SuggestedValue])
    has_pruner = spec.pruner is not None and spec.pruner.type != "NopPruner"
    return events.DefineByRun(
        objectives=spec.objectives, has_pruner=has_pruner, suggestions=suggestions
    )
