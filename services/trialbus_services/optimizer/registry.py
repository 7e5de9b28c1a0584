"""Samplers and pruners, built from the names and arguments of Optuna's classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, cast

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler, nsgaii

from trialbus.errors import SpecError
from trialbus.study.search_space import IntParam, Param
from trialbus.study.spec import Component, StudySpec
from trialbus.study.spec_limits import MAX_SEED
from trialbus.study.user_code import load_class
from trialbus.study.validation import format_expected, is_mapping
from trialbus_services.optimizer import optunahub_classes
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.component_arguments import check_arguments, list_arguments
from trialbus_services.optimizer.distributions import list_values
from trialbus_services.optimizer.enumerating_samplers import BruteForce, Grid

_ENUMERATING = (GridSampler, BruteForceSampler, QMCSampler)

# Optuna's samplers whose bookkeeping the study does itself, by name.
_OWN_CLASSES: dict[str, type] = {
    GridSampler.__name__: Grid,
    BruteForceSampler.__name__: BruteForce,
}

#: Arguments that are objects, written as `{type: <class>, <argument>: <value>}`: where their
#: classes are, and from which class they derive.
_PARTS: dict[str, tuple[ModuleType, type]] = {
    "crossover": (nsgaii, nsgaii.BaseCrossover),
    "mutation": (nsgaii, nsgaii.BaseMutation),
}

# Samplers that do not work well with conditional params, and why. All others sample a param that is
# not in every trial independently, or support conditions.
_UNCONDITIONAL = {
    "GridSampler": "would try a point again for each value of a param that is not in it (expected "
    "BruteForceSampler, which does not)",
    "CmaEsSampler": "changes to random sampling permanently when a param of its first generation "
    "is missing later (expected TPESampler, for example)",
}


def build_sampler(
    spec: StudySpec, n_before: int = 0, *, allowed: AllowedModules | None = None
) -> BaseSampler:
    """Build the sampler of a study.

    The seed of the sampler, and of samplers inside it, is the study's seed, unless the arguments
    give another. A sampler that draws gets that seed plus `n_before`: with the same seed a
    restarted sampler would repeat its suggestions. The seed of a sampler that enumerates stays, for
    it tells which sequence of points the sampler goes through. A grid takes its points from the
    params.

    Args:
        spec: Specification of the study.
        n_before: Number of trials that samplers suggested before.
        allowed: Modules from which a class may be imported; None for all.

    Raises:
        SpecError: The class or an argument does not exist, has a wrong type, is refused by Optuna,
            is not allowed, or does not work with the params.
    """
    component = spec.sampler
    _check_conditions(spec)
    if spec.define_by_run and is_enumerating(component):
        raise SpecError(
            "sampler.type",
            f"{component.type} enumerates params that are declared, and with "
            "study.define_by_run=true the training asks for its params itself (expected "
            "study.params, or another sampler)",
        )
    grid = _find_grid(component)
    if grid is not None:
        component = Component(type=grid.type, args={**grid.args, "search_space": _make_grid(spec)})
    elif component.type == "PartialFixedSampler":
        _check_params(spec, "fixed_params", component.args.get("fixed_params"))
    elif component.type == "QMCSampler" and component.args.get("independent_sampler") is None:
        # The seed of the sequence stays, the seed of what is drawn beside the sequence does not.
        args = {"seed": component.args.get("seed")}
        independent = {"type": "RandomSampler", **{k: v for k, v in args.items() if v is not None}}
        component = Component(
            type=component.type, args={**component.args, "independent_sampler": independent}
        )
    sampler = _build(
        "sampler",
        component,
        optuna.samplers,
        BaseSampler,
        allowed=allowed,
        make_seed=_SeedMaker(spec, n_before),
    )
    assert isinstance(sampler, BaseSampler)
    return sampler


class _SeedMaker:
    """Makes the seed of a sampler, and of the samplers inside the sampler."""

    def __init__(self, spec: StudySpec, n_before: int) -> None:
        self._spec = spec
        self._n_before = n_before

    def __call__(self, class_: type, seed: int | None) -> int:
        offset = 0 if issubclass(class_, _ENUMERATING) else self._n_before
        base = self._spec.seed if seed is None else seed
        return (base + offset) % (MAX_SEED + 1)


def is_enumerating(sampler: Component) -> bool:
    """Tell whether a sampler enumerates the points of a finite space, by itself or inside."""
    names = (GridSampler.__name__, BruteForceSampler.__name__)
    return sampler.type in names or any(
        is_mapping(value) and (value.get("type") or value.get("_target_")) in names
        for value in sampler.args.values()
    )


def _find_grid(component: Component) -> Component | None:
    """Return the grid that a study's sampler is, or that has some of its params fixed."""
    if component.type == "PartialFixedSampler":
        base = component.args.get("base_sampler")
        component = _parse_component(base) if is_mapping(base) and _names_type(base) else component
    return component if component.type == GridSampler.__name__ else None


def _make_grid(spec: StudySpec) -> dict[str, list[Any]]:
    """Return the values of each param of a grid.

    Raises:
        SpecError: A param has infinitely many values, or the values in the sampler's arguments do
            not fit the params.
    """
    pinned: Mapping[str, Any] = spec.sampler.args.get("fixed_params") or {}
    _check_params(spec, "fixed_params", pinned)
    given = (_find_grid(spec.sampler) or spec.sampler).args.get("search_space")
    if given is not None:
        if not is_mapping(given):
            raise SpecError(
                "sampler.search_space", f"{given!r} is no mapping (expected values by param)"
            )
        for name, values in given.items():
            if not isinstance(values, list | tuple) or not values:
                raise SpecError(
                    f"sampler.search_space.{name}", f"{values!r} is no list (expected its values)"
                )
            for value in cast("list[Any]", values):
                _check_params(spec, "search_space", {name: value})
    grid: dict[str, list[Any]] = {}
    for name, param in spec.space.items():
        if name in pinned:
            grid[name] = [param.encode(pinned[name])]
        elif given is not None and name in spec.params:
            if name not in given:
                raise SpecError(
                    "sampler.search_space", f"{name} is missing (expected the values of each param)"
                )
            grid[name] = [param.encode(value) for value in given[name]]
        else:
            grid[name] = _list_points(name, param)
    return grid


def _check_params(spec: StudySpec, argument: str, params: Any) -> None:
    """Check that params in an argument of the sampler are in the search space."""
    for name, value in params.items() if is_mapping(params) else ():
        if name in spec.space and not spec.space[name].contains(value):
            raise SpecError(
                f"sampler.{argument}.{name}", f"{value!r} is outside of {spec.space[name]}"
            )
        if name not in spec.space:
            raise SpecError(
                f"sampler.{argument}.{name}", f"is not a param{format_expected(name, spec.space)}"
            )


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
    if name.startswith(optunahub_classes.PREFIX):
        if allowed is not None:
            allowed.check(f"{key}.type", name)
        return optunahub_classes.load_hub_class(f"{key}.type", name, base)
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
    class_: type = _OWN_CLASSES.get(name) or getattr(module, name)
    return class_


def _build(
    key: str,
    component: Component,
    module: ModuleType,
    base: type,
    *,
    allowed: AllowedModules | None,
    make_seed: Callable[[type, int | None], int] | None = None,
) -> object:
    class_ = _find_class(key, component.type, module, base, allowed)
    check_arguments(key, class_, component.args)
    args: dict[str, Any] = {}
    for name, value in component.args.items():
        if is_mapping(value) and _names_type(value):
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
    if make_seed is not None and "seed" in list_arguments(class_):
        args["seed"] = make_seed(class_, args.get("seed"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return class_(**args)
    except (TypeError, ValueError, ImportError) as error:
        raise SpecError(key, f"{component.type}({_format_args(args)}): {error}") from error


def _names_type(data: Mapping[str, Any]) -> bool:
    return "type" in data or "_target_" in data


def _parse_component(data: Mapping[str, Any]) -> Component:
    name = "type" if "type" in data else "_target_"
    return Component(type=data[name], args={k: v for k, v in data.items() if k != name})


def _list_points(name: str, param: Param) -> list[Any]:
    values = list_values(param)
    if values is None or (isinstance(param, IntParam) and param.log and len(values) > 1):
        raise SpecError(
            f"study.params.{name}", "a grid needs choices or a step (expected step: <width>)"
        )
    return list(values)


def _format_args(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())
