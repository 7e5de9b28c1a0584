"""Spec loading: builds a `StudySpec` from plain mappings of YAML or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from trialbus.errors import SpecError
from trialbus.study.search_space import Param
from trialbus.study.spec import NOT_WRITTEN, Component, Objective, StudySpec
from trialbus.study.spec_limits import check_arguments
from trialbus.study.validation import convert, find_nearest, format_expected, is_mapping


def load_spec(study: Mapping[str, Any], *, sampler: Any, pruner: Any) -> StudySpec:
    """Build a study specification from plain mappings.

    Args:
        study: The fields of `StudySpec` without sampler and pruner; `params` maps a name to
            `{type: float | int | categorical, ...}`, `objective` is a mapping or a list of them.
        sampler: `{type: <class>, <argument>: <value>, ...}`; `_target_` may stand for `type`.
        pruner: A mapping of the same form, or None for no pruner.

    Raises:
        SpecError: A key is unknown, missing, of the wrong type or out of range; the message
            names the key and the value.
    """
    check_keys(study)
    data = dict(study)
    params: Any = data.pop("params", None)
    if data.get("define_by_run") is True:
        params = cast("dict[str, Any]", params or {})
    if not is_mapping(params) or not (params or data.get("define_by_run") is True):
        raise SpecError(
            "study.params",
            f"{params!r} is not a search space (expected a mapping of at least one param, or "
            "study.define_by_run=true for an objective function of Optuna)",
        )
    objective = data.pop("objective", None)
    if not objective or not (is_mapping(objective) or isinstance(objective, list)):
        raise SpecError(
            "study.objective",
            f"{objective!r} is no objective (expected a mapping with a metric, or a list of them)",
        )
    objectives = cast(list[Any], [objective] if is_mapping(objective) else objective)
    spec: dict[str, Any] = {
        **data,
        "params": {
            name: _load_param(f"study.params.{name}", param, others=params)
            for name, param in params.items()
        },
        "objectives": tuple(
            _load_objective(
                "study.objective" if len(objectives) == 1 else f"study.objective[{i}]", entry
            )
            for i, entry in enumerate(objectives)
        ),
        "sampler": _load_component("sampler", sampler),
        "pruner": None if pruner is None else _load_component("pruner", pruner),
    }
    loaded: StudySpec = convert("study", spec, StudySpec)
    return loaded


def check_keys(study: Iterable[str]) -> None:
    """Check that every key of a written study is known, as `load_spec` does.

    Raises:
        SpecError: A key is unknown; the message names the nearest known key.
    """
    known = {"objective", *StudySpec.__struct_fields__} - NOT_WRITTEN
    for key in study:
        if key not in known:
            raise SpecError(f"study.{key}", f"no such key{format_expected(key, known)}")


def _load_param(key: str, data: Any, *, others: Mapping[str, Any]) -> Param:
    if is_mapping(data) and "type" not in data:
        name = key.removeprefix("study.params.")
        near = find_nearest(name, [other for other in others if other != name])
        hint = f"; did you mean the param {near!r}?" if near else ""
        raise SpecError(
            f"{key}.type",
            f"missing in {dict(data)!r} (expected float, int or categorical){hint}",
        )
    choices = data.get("choices") if is_mapping(data) else None
    if is_mapping(choices):
        for label in cast("Iterable[object]", choices):
            if not isinstance(label, str):
                raise SpecError(
                    f"{key}.choices",
                    f"has the label {label!r} (expected text, in quotes where YAML reads another "
                    "type, as of on, off, yes, no and numbers)",
                )
    for i, choice in enumerate(cast("list[object]", choices) if isinstance(choices, list) else ()):
        if isinstance(choice, list | dict):
            raise SpecError(
                f"{key}.choices[{i}]",
                f"{choice!r} has no label (expected choices with labels, such as "
                f"{{a: {choice!r}}})",
            )
    param: Param = convert(key, data, Param)
    return param


def _load_objective(key: str, data: Any) -> Objective:
    if not is_mapping(data):
        raise SpecError(
            key,
            f"{data!r} is not an objective (expected {{metric: <name>, direction: <direction>}})",
        )
    # An unknown key is reported first: the key may be a misspelt `metric`.
    if data.keys() <= set(Objective.__struct_fields__) and data.get("metric") in (None, ""):
        raise SpecError(
            f"{key}.metric",
            f"{data.get('metric')!r} names no metric (expected the name of a metric that the "
            "trainer reports)",
        )
    objective: Objective = convert(key, data, Objective)
    return objective


def _load_component(key: str, data: Any) -> Component:
    names = [name for name in ("type", "_target_") if is_mapping(data) and data.get(name)]
    if len(names) != 1 or not isinstance(data[names[0]], str):
        raise SpecError(
            f"{key}.type",
            f"missing in {data!r} (expected a class of Optuna, or package.module.Class)",
        )
    args = {k: v for k, v in data.items() if k != names[0]}
    try:
        check_arguments(key, args)
    except ValueError as error:
        raise SpecError(key, str(error).removeprefix(f"{key}.")) from None
    return Component(type=data[names[0]], args=args)
