"""Defaults: the params and the budget of a training that its study leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from trialbus.errors import SpecError
from trialbus.messages import events
from trialbus.study.nested_config import flatten_config
from trialbus.study.validation import is_mapping


def check_defaults(defaults: object, budget: object) -> None:
    """Check the defaults of `attach`, which a script may take from its command line.

    Raises:
        SpecError: `defaults` is not a mapping of names, or `budget` is not a number of steps.
    """
    if defaults is not None and not is_mapping(defaults):
        raise SpecError("defaults", f"{defaults!r} is not a mapping (expected params by name)")
    for name in cast("Iterable[object]", defaults or ()):
        if not isinstance(name, str) or not name:
            raise SpecError("defaults", f"{name!r} is not the name of a param (expected text)")
    if budget is not None and not (isinstance(budget, int) and budget >= 0):
        raise SpecError("budget", f"{budget!r} is not a number of steps (expected an integer)")


def add_defaults(
    params: Mapping[str, Any], defaults: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Add defaults for the params that the study does not search.

    A value of the study's configuration takes precedence over a default of the same name.

    Args:
        params: Value of each param by name.
        defaults: Value of each default by name.
        config: Flat configuration of the study.
    """
    defaults = {name: config.get(name, default) for name, default in (defaults or {}).items()}
    return {**defaults, **params}


def assign_defaults(
    assigned: events.TrialAssigned, defaults: Mapping[str, Any] | None
) -> events.TrialAssigned:
    """Return an assignment with defaults for the params that the study does not search."""
    params = add_defaults(assigned.params, defaults, flatten_config(assigned.config))
    return msgspec.structs.replace(assigned, params=params)
