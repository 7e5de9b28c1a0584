"""Check, before a study starts, that a program gets the params of every trial as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trialbus.errors import SpecError
from trialbus.study.nested_config import flatten_config
from trialbus.study.search_space import CategoricalParam, Param
from trialbus.study.spec import StudySpec
from trialbus.study.values import is_same
from trialbus_services.config.settings import ParamsAs
from trialbus_services.worker.command_line import build_environment, quote_for_hydra


def check_params(params_as: ParamsAs, spec: StudySpec) -> None:
    """Check that a program which takes its params in some way gets those of any trial unchanged.

    Args:
        params_as: How the program takes the params.
        spec: Specification of the study.

    Raises:
        SpecError: A name or a value cannot be given in that way; names the key and the value.
    """
    values = _list_values(spec)
    match params_as:
        case "flags":
            _check_flags(values)
        case "overrides":
            _check_overrides(values)
        case "environment":
            _check_variables(values)
        case "file":
            return


def _list_values(spec: StudySpec) -> dict[str, tuple[str, list[Any]]]:
    """Return by name the key in the study, and values that stand for all values of the name."""
    config = {
        name: ("study.base_config", [value]) for name, value in flatten_config(spec.config).items()
    }
    params = {name: (f"study.params.{name}", _sample(p)) for name, p in spec.params.items()}
    fixed = {name: (f"study.fixed.{name}", [value]) for name, value in spec.fixed.items()}
    return {**config, **params, **fixed}


def _sample(param: Param) -> list[Any]:
    if not isinstance(param, CategoricalParam):
        return [param.low, param.high]
    return list(param.choices.values() if isinstance(param.choices, dict) else param.choices)


def _check_flags(values: Iterable[str]) -> None:
    for name in values:
        if re.search(r"[=\s]", name):
            raise SpecError(
                "trainer.params_as",
                f"flags cannot hold the name {name!r} (expected names without = and spaces)",
            )


def _check_variables(values: Mapping[str, Any]) -> None:
    try:
        build_environment(values)
    except ValueError as error:
        raise SpecError(
            "trainer.params_as", f"environment cannot hold both: {error} (expected other names)"
        ) from None


def _check_overrides(values: Mapping[str, tuple[str, list[Any]]]) -> None:
    parser = OverridesParser.create()
    for name, (key, samples) in values.items():
        for value in samples:
            override = f"{name}={quote_for_hydra(value)}"
            try:
                parsed = parser.parse_override(override)
                is_kept = parsed.get_key_element() == name and is_same(_read(parsed.value()), value)
            except (HydraException, OmegaConfBaseException):
                is_kept = False
            if not is_kept:
                raise SpecError(
                    key,
                    f"{override} is no override that Hydra reads as {name!r} and {value!r} "
                    "(expected plain names, also as keys of mappings; or trainer.params_as=file)",
                )


def _read(value: Any) -> Any:
    """Return a value as an application reads it from its config."""
    config = OmegaConf.create({"value": None})
    OmegaConf.update(config, "value", value)
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return plain["value"]
