"""Param events: how a training asks for a param that its study has not declared beforehand.

In a study with `define_by_run` the code of the training decides which params a trial has, as an
objective function of Optuna does.
"""

from __future__ import annotations

import msgspec

from trialbus.messages.event import TrialEvent
from trialbus.study.search_space import Choice, Param
from trialbus.study.spec import Objective


class SuggestedValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that the sampler suggests before the training asks for the param."""

    param: Param
    """Range or choices that the value was chosen from."""

    value: Choice
    """Suggested value."""


class DefineByRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a training that defines its params itself has to know of the study and of the trial."""

    objectives: tuple[Objective, ...] = ()
    """Objectives of the study, with metrics and directions."""

    has_pruner: bool = False
    """Whether the study has a pruner, whose decision about each report a training waits for."""

    suggestions: dict[str, SuggestedValue] = {}
    """Values that the sampler chose together, by param; they are used if the training asks for the
    param with a range or choices that hold the value."""


class ParamRequested(TrialEvent, frozen=True, kw_only=True):
    """A training asks for the value of a param, which becomes a param of the trial.

    A repeated request for the same name yields the same value, also in a later attempt.

    Source:
        `optuna.trial.Trial.suggest_float` and its like.
    """

    name: str
    """Name of the param."""

    param: Param
    """Range or choices that the value has to be from."""

    answer: bool = True
    """Whether the training waits for `param_suggested`; else the training uses `value`, which came
    with the trial as a suggestion."""

    value: Choice = None
    """The value that the training uses; without meaning if the training waits for an answer."""


class ParamSuggested(TrialEvent, frozen=True, kw_only=True):
    """The optimizer answers a `param_requested`, after the param is recorded."""

    name: str
    """Name of the param."""

    value: Choice = None
    """Value of the param; without meaning if there is an `error`."""

    error: str | None = None
    """Why there is no value, for example that an earlier trial has a param of another kind under
    this name; None for a value."""
