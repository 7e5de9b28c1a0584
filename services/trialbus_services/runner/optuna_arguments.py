"""Optuna arguments: what `Study.optimize` takes and `optimize` takes in another way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import optuna

from trialbus.errors import SpecError

P = ParamSpec("P")
R = TypeVar("R")

#: What replaces an argument of Optuna, by the argument's name.
_REPLACEMENTS = {
    "callbacks": "a callback of Optuna runs in the process of the study, which is another one here "
    "(expected target=VALUE or early_stop_patience=N to end the study, and "
    "trialbus.subscribe(trialbus.TrialFinished) to follow the trials)",
}


def refuse_study(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that refuses a study of Optuna in the place of the objective function.

    Args:
        function: Function whose first argument is an objective function.
    """

    @functools.wraps(function)
    def check(*args: P.args, **kwargs: P.kwargs) -> R:
        if args and isinstance(args[0], optuna.Study):
            name = args[0].study_name
            raise SpecError(
                "function",
                f"the study of Optuna {name!r} stands in its place (expected "
                f"optimize(objective, n_trials=100, study_name={name!r}, storage=URL), "
                "which goes on with the study of that name in that storage)",
            )
        return function(*args, **kwargs)

    return check


def check_replaced(fields: Mapping[str, Any]) -> None:
    """Check that no further field is an argument of Optuna that has another form here.

    Raises:
        SpecError: A field is one; says what to write.
    """
    for name, replacement in _REPLACEMENTS.items():
        if name in fields:
            raise SpecError(name, replacement)


def convert_catch(catch: type[Exception] | Iterable[type[Exception]] | None) -> dict[str, bool]:
    """Return the fields of a study for the exceptions after which Optuna would go on.

    Args:
        catch: `Exception`, or `()` for no exception; None for the default of a study.

    Raises:
        SpecError: Other exceptions are named: which one a trial raised is not told apart.
    """
    if catch is None:
        return {}
    if not isinstance(catch, type | Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SpecError("catch", f"{catch!r} is no exception class (expected Exception or ())")
    classes = (catch,) if isinstance(catch, type) else tuple(catch)
    if not classes or Exception in classes:
        return {"catch_exceptions": bool(classes)}
    names = ", ".join(getattr(class_, "__name__", repr(class_)) for class_ in classes)
    raise SpecError(
        "catch",
        f"a study does not tell {names} from other exceptions (expected Exception, or () to end "
        "with the first failed trial; max_failures=N ends with N in a row, and retries="
        '{"exception": N} runs a failed trial again)',
    )
