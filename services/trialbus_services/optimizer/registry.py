"""Samplers and pruners, built from the names and arguments of Optuna's classes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import ModuleType
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, nsgaii

from trialbus.errors import SpecError
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam, Param
from trialbus.study.spec import Component, StudySpec
from trialbus.study.user_code import load_class
from trialbus.study.validation import format_expected, is_mapping
from trialbus_services.optimizer.allowed_modules import AllowedModules

_GRID = "GridSampler"

#: Arguments that are objects, written as `{type: <class>, <argument>: <value>}`: where their
#: classes are, and from which class they derive.
_PARTS: dict[str, tuple[ModuleType, type]] = {
    "crossover": (nsgaii, nsgaii.BaseCrossover),
    "mutation": (nsgaii, nsgaii.BaseMutation),
}

# Samplers that do not work well with conditional params, and why. All others sample a param that is
# not in every trial independently, or support conditions.
_UNCONDITIONAL = {
    _GRID: "would try a point again for each value of a param that is not in it (expected "
    "BruteForceSampler, which does not)",
    "CmaEsSampler": "changes to random sampling permanently when a param of its first generation "
    "is missing later (expected TPESampler, for example)",
}


def build_sampler(
    spec: StudySpec, n_before: int = 0, *, allowed: AllowedModules | None = None
) -> BaseSampler:
    """Build the sampler of a study.

    The seed of the sampler, and of samplers inside it, is the study's seed, unless the arguments
    give another, plus `n_before`: with the same seed a restarted sampler would repeat its
    suggestions. A grid sampler takes its grid from the params.

    Args:
        spec: Specification of the study.
        n_before: Number of trials that the study has already.
        allowed: Modules from which a class may be imported; None for all.

    Raises:
        SpecError: The class or an argument does not exist, is refused by Optuna, is not allowed, or
            does not work with conditional params.
    """
    component = spec.sampler
    args = dict(component.args)
    _check_conditions(spec)
    if component.type == _GRID:
        args.setdefault(
            "search_space", {name: _list_points(name, param) for name, param in spec.space.items()}
        )
    sampler = _build(
        "sampler",
        Component(type=component.type, args=args),
        optuna.samplers,
        BaseSampler,
        allowed=allowed,
        make_seed=lambda seed: (spec.seed if seed is None else seed) + n_before,
    )
    assert isinstance(sampler, BaseSampler)
    return sampler


def _check_conditions(spec: StudySpec) -> None:
    conditional = next((name for name, param in spec.params.items() if param.when), None)
    types = [
        spec.sampler.type,
        *(value.get("type") for value in spec.sampler.args.values() if is_mapping(value)),
    ]
    for type_ in types if conditional else ():
        if type_ in _UNCONDITIONAL:
            raise SpecError(
                "sampler.type",
                f"study.params.{conditional} has a condition, and {type_} {_UNCONDITIONAL[type_]}",
            )


def build_pruner(
    component: Component | None, *, allowed: AllowedModules | None = None
) -> BasePruner:
    """Build the pruner of a study; without a component, a pruner that prunes no trial.

    Args:
        component: Class and arguments of the pruner.
        allowed: Modules from which a class may be imported; None for all.

    Raises:
        SpecError: The class or an argument does not exist, is refused by Optuna, or is not allowed.
    """
    if component is None:
        return NopPruner()
    pruner = _build("pruner", component, optuna.pruners, BasePruner, allowed=allowed)
    assert isinstance(pruner, BasePruner)
    return pruner


def _find_class(
    key: str, name: str, module: ModuleType, base: type[object], allowed: AllowedModules | None
) -> type[object]:
    if "." in name or ":" in name:
        if allowed is not None:
            allowed.check(f"{key}.type", name)
        return load_class(f"{key}.type", name, base)
    names = [
        n
        for n in module.__all__
        if isinstance(c := getattr(module, n), type) and issubclass(c, base) and c is not base
    ]
    if name not in names:
        noun = base.__name__.removeprefix("Base").lower()
        raise SpecError(
            f"{key}.type", f"{name!r} is not a {noun} of Optuna{format_expected(name, names)}"
        )
    class_: type = getattr(module, name)
    return class_


def _build(
    key: str,
    component: Component,
    module: ModuleType,
    base: type,
    *,
    allowed: AllowedModules | None,
    make_seed: Callable[[int | None], int] | None = None,
) -> object:
    class_ = _find_class(key, component.type, module, base, allowed)
    known = [
        name
        for name in inspect.signature(class_).parameters
        if name not in {"self", "args", "kwargs"}
    ]
    args: dict[str, Any] = {}
    for name, value in component.args.items():
        if name not in known:
            raise SpecError(
                f"{key}.{name}",
                f"{component.type} has no such argument{format_expected(name, known)}",
            )
        if is_mapping(value) and ("type" in value or "_target_" in value):
            part = _PARTS.get(name, (module, base))
            args[name] = _build(
                f"{key}.{name}",
                _parse_component(value),
                *part,
                allowed=allowed,
                make_seed=make_seed,
            )
        else:
            args[name] = value
    if make_seed is not None and "seed" in known:
        args["seed"] = make_seed(args.get("seed"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return class_(**args)
    except (TypeError, ValueError, ImportError) as error:
        raise SpecError(key, f"{component.type}({_format_args(args)}): {error}") from error


def _parse_component(data: Mapping[str, Any]) -> Component:
    name = "type" if "type" in data else "_target_"
    return Component(type=data[name], args={k: v for k, v in data.items() if k != name})


def _list_points(name: str, param: Param) -> list[Any]:
    match param:
        case CategoricalParam():
            return list(param.labels)
        case IntParam() | FloatParam() if param.low == param.high:
            return [param.low]
        case IntParam(log=False):
            return list(range(param.low, param.high + 1, param.step))
        case _ if param.step is not None and not param.log:
            # In decimal, as in Optuna: 0.1 + 0.1 + 0.1 is 0.3.
            low, high, step = (
                Decimal(str(number)) for number in (param.low, param.high, param.step)
            )
            return [float(low + i * step) for i in range(int((high - low) // step) + 1)]
        case _:
            raise SpecError(
                f"study.params.{name}", "a grid needs choices or a step (expected step: <width>)"
            )


def _format_args(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())
