"""Schema of the config: structured configs that are built from the structs of `settings`.

Every field is defined once, in the `msgspec.Struct` of its section. The dataclasses that Hydra
wants are built from these structs, so that Hydra knows every field, its type and its default: an
override needs no `+`, a wrong type is refused when the config is composed, and completion offers
every key.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

import msgspec
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from trialbus.callbacks import CallbackConfig
from trialbus.study.spec import NOT_WRITTEN, StudySpec
from trialbus_services.config import settings

#: Name of the schema in Hydra's ConfigStore; `config.yaml` begins with it.
NAME = "schema"

_SCALARS = (bool, int, float, str)


def register() -> None:
    """Register the schema, `${trialbus.python:}` and `${trialbus.examples:<file>}` with Hydra."""
    ConfigStore.instance().store(name=NAME, node=build_schema(), provider="trialbus")
    OmegaConf.register_new_resolver("trialbus.python", lambda: sys.executable, replace=True)
    OmegaConf.register_new_resolver("trialbus.examples", _find_example, replace=True)


def build_schema() -> DictConfig:
    """Return the whole config with types and defaults, and `???` for values without a default."""
    config = OmegaConf.create(
        {
            name: OmegaConf.structured(build_dataclass(struct))
            for name, struct in settings.SECTIONS.items()
        }
        | {
            "study": OmegaConf.structured(_build_study_dataclass()),
            "callbacks": OmegaConf.structured(CallbackConfig),
            "sampler": {},
            "pruner": {},
        }
    )
    # Lets `~study.params '+study.params={...}'` replace the search space of a study; `load_spec`
    # refuses unknown keys.
    OmegaConf.set_struct(config.study, value=False)
    # Not missing: a study with `define_by_run` has none, and `load_spec` refuses any other.
    config.study.params = {}
    return config


@cache
def build_dataclass(struct: type[msgspec.Struct]) -> type[Any]:
    """Return a dataclass with the fields and defaults of a struct, in types that OmegaConf has.

    A type that OmegaConf cannot express (unions, sections that may be null, and mappings of unions)
    becomes `Any`; the struct checks such values.

    Args:
        struct: Struct whose annotations can be evaluated.
    """
    return _make_dataclass(struct, msgspec.structs.fields(struct))


def _build_study_dataclass() -> type[Any]:
    fields = [f for f in msgspec.structs.fields(StudySpec) if f.name not in NOT_WRITTEN]
    objective = ("objective", Any, dataclasses.field(default=MISSING))
    return _make_dataclass(StudySpec, fields, objective)


def _make_dataclass(
    struct: type[Any], fields: Any, *more_fields: tuple[str, Any, Any]
) -> type[Any]:
    hints = get_type_hints(struct)
    converted = [(field.name, *_convert_field(hints[field.name], field)) for field in fields]
    return dataclasses.make_dataclass(struct.__name__, [*converted, *more_fields])


def _convert_field(hint: Any, field: Any) -> tuple[Any, Any]:
    """Return the annotation and the default of a field for a dataclass."""
    type_ = _convert_hint(hint)
    if field.default_factory is not msgspec.NODEFAULT:
        return type_, dataclasses.field(default_factory=field.default_factory)
    if field.default is msgspec.NODEFAULT:
        return type_, dataclasses.field(default=MISSING)
    default = field.default
    if isinstance(default, msgspec.Struct):
        return type_, dataclasses.field(default_factory=type_)
    if isinstance(default, dict | list | tuple):
        data = msgspec.to_builtins(default)
        return type_, dataclasses.field(default_factory=lambda: data)
    return type_, dataclasses.field(default=default)


def _convert_hint(hint: Any) -> Any:  # noqa: PLR0911 - one line for each kind of type
    origin, args = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return hint
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return build_dataclass(hint)
    if origin is Annotated:
        return _convert_hint(args[0])
    if origin is Literal:
        return str if all(isinstance(value, str) for value in args) else Any
    if origin in (Union, types.UnionType):
        members = [arg for arg in args if arg is not type(None)]
        # OmegaConf fails at a key, or a mapping, for a section that is null.
        is_section = isinstance(members[0], type) and issubclass(members[0], msgspec.Struct)
        is_alone = len(members) == 1 and not is_section
        return Optional[_convert_hint(members[0])] if is_alone else Any  # noqa: UP045
    if origin in (list, tuple):
        return list[_convert_hint(args[0])]
    if origin is dict:
        return dict[str, _convert_hint(args[1])]
    return Any


def _find_example(name: str) -> str:
    """Return the path of an example, in the installed package or in the checkout."""
    services = Path(__file__).parents[2]
    installed = services / "examples"
    folder = installed if installed.is_dir() else services.parents[1] / "examples"
    return str(folder / name)
