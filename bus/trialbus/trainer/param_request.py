"""Param request: what a training publishes that decides itself which params its trial has."""

from __future__ import annotations

from trialbus.messages import events
from trialbus.study.search_space import Param


def build_param_request(
    assigned: events.TrialAssigned, name: str, param: Param
) -> events.ParamRequested:
    """Return the request for a param, or the use of a suggestion that came with the trial.

    Args:
        assigned: Assignment of the trial.
        name: Name of the param.
        param: Range or choices of the param.
    """
    suggestions = assigned.define_by_run.suggestions if assigned.define_by_run else {}
    suggestion = suggestions.get(name)
    is_used = suggestion is not None and _is_suggestion_for(suggestion, param)
    return events.ParamRequested(
        study=assigned.study,
        trial=assigned.trial,
        attempt=assigned.attempt,
        name=name,
        param=param,
        answer=not is_used,
        value=suggestion.value if suggestion is not None and is_used else None,
    )


def _is_suggestion_for(suggestion: events.SuggestedValue, param: Param) -> bool:
    """Tell whether a suggestion is a value of a param, which is of the same kind."""
    is_same_kind = type(param) is type(suggestion.param) and all(
        getattr(param, name, None) == getattr(suggestion.param, name, None)
        for name in ("choices", "log")
    )
    return is_same_kind and param.contains(suggestion.value)
