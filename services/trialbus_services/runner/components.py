"""Components: samplers and pruners, given as objects, as the names and arguments of a study.

A study travels as plain data, so that no process unpickles what another sends. Of an object the
arguments of its constructor are read back, and an object made of them is compared with it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from trialbus.errors import SpecError
from trialbus.study.validation import is_mapping

_MT19937_WORDS = 624

#: Attributes in which Optuna's objects keep an argument, where the names differ.
_ATTRIBUTES = {"deterministic_objective": "_deterministic"}


def describe_component(key: str, component: object) -> dict[str, Any]:
    """Return a sampler or pruner as a study has it: `{type: <class>, <argument>: <value>}`.

    Args:
        key: `sampler` or `pruner`, for errors.
        component: Name of a class, a mapping of that form, or an object of Optuna's classes or of
            your own.

    Raises:
        SpecError: The object cannot be described by the arguments of its class.

    Example:
        >>> describe_component("sampler", optuna.samplers.TPESampler(seed=3))
        {'type': 'TPESampler', 'seed': 3}
    """
    if isinstance(component, str):
        return {"type": component}
    if is_mapping(component):
        return dict(component)
    if isinstance(component, BaseSampler | BasePruner):
        return _describe_object(key, component)
    raise SpecError(
        key, f"{component!r} is no {key} (expected the name of a class, or an object of Optuna)"
    )


def _describe_object(key: str, component: BaseSampler | BasePruner) -> dict[str, Any]:
    class_ = type(component)
    name = _name_class(key, class_)
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(class_).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    found = {
        parameter: value
        for parameter in parameters
        if (value := _read_argument(component, parameter)) is not _MISSING
    }
    arguments = {
        n: value for n, value in found.items() if not _is_same(parameters[n].default, value)
    }
    for n in list(arguments):
        others = {other: value for other, value in arguments.items() if other != n}
        if _makes(class_, others, component):
            arguments = others
    if not _makes(class_, arguments, component):
        raise SpecError(
            key,
            f"this {class_.__name__} cannot travel to the optimizer: the arguments that it was "
            "made with cannot be read back, or it was used before (expected "
            f'{key}={{"type": "{name}", <argument>: <value>}})',
        )
    return {"type": name} | {n: _describe_value(key, value) for n, value in arguments.items()}


def _makes(class_: type, arguments: Mapping[str, Any], component: BaseSampler | BasePruner) -> bool:
    """Tell whether a class makes an object like a component out of arguments."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _is_same(class_(**arguments), component)
    except Exception:  # noqa: BLE001 - of a constructor of anybody
        return False
    finally:
        optuna.logging.set_verbosity(verbosity)


class _Missing:
    """The value of an argument that an object does not keep."""


_MISSING = _Missing()


def _name_class(key: str, class_: type) -> str:
    """Return the name of a class of Optuna, or the import path of another."""
    for module in (optuna.samplers, optuna.pruners):
        if getattr(module, class_.__name__, None) is class_:
            return class_.__name__
    if class_.__module__ == "__main__" or "<" in class_.__qualname__:
        raise SpecError(
            key,
            f"{class_.__qualname__} cannot be imported by the optimizer (expected a class at the "
            "top level of a module)",
        )
    return f"{class_.__module__}.{class_.__qualname__}"


def _read_argument(component: object, name: str) -> Any:
    """Return the argument of a constructor that an object keeps under its name."""
    if name == "seed":
        state = vars(component).get("_rng") or vars(component).get("_cma_rng")
        if state is not None:
            return _read_seed(state)
    for attribute in (_ATTRIBUTES.get(name, f"_{name}"), name):
        if attribute in vars(component):
            return vars(component)[attribute]
    return _MISSING


def _read_seed(state: Any) -> Any:
    """Return the seed of a random state of Optuna that has drawn no number yet."""
    generator: np.random.RandomState | None = getattr(state, "_rng", None)
    if generator is None:
        return None
    _, words, position, *_ = cast("tuple[Any, ...]", generator.get_state())
    return int(words[0]) if position == _MT19937_WORDS else _MISSING


def _describe_value(key: str, value: Any) -> Any:
    if isinstance(value, BaseSampler | BasePruner):
        return _describe_object(key, value)
    return value


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether two objects of one class would behave alike."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.random.RandomState):
        return _is_same(one.get_state(), other.get_state())
    if isinstance(one, np.ndarray):
        return np.array_equal(cast(Any, one), other)
    if is_mapping(one):
        return one.keys() == other.keys() and all(_is_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        parts = cast("tuple[Any, ...]", one)
        return len(parts) == len(other) and all(map(_is_same, parts, other))
    return bool(one == other) or (hasattr(one, "__dict__") and _is_same(vars(one), vars(other)))
