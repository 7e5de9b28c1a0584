"""The schema of the config: structured configs, made from the types that check it.

Every field is defined once, in the `msgspec.Struct` of its section. The dataclasses that Hydra
wants are made from those, so that Hydra knows every field, its type and its default: an override
needs no `+`, a wrong type is refused as the config is composed, and completion offers all of it.
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
    """Make the schema, `${trialbus.python:}` and `${trialbus.examples:<file>}` known to Hydra."""
    ConfigStore.instance().store(name=NAME, node=schema(), provider="trialbus")
    OmegaConf.register_new_resolver("trialbus.python", lambda: sys.executable, replace=True)
    OmegaConf.register_new_resolver("trialbus.examples", _example, replace=True)


def schema() -> DictConfig:
    """Return the whole config, with types and defaults, and `???` for what has none."""
    config = OmegaConf.create(
        {name: OmegaConf.structured(structured(type_)) for name, type_ in settings.SECTIONS.items()}
        | {
            "study": OmegaConf.structured(_study()),
            "callbacks": OmegaConf.structured(CallbackConfig),
            "sampler": {},
            "pruner": {},
        }
    )
    # So that `~study.params '+study.params={...}'` can exchange the search space of a study;
    # `load_spec` refuses keys that it does not know.
    OmegaConf.set_struct(config.study, value=False)
    return config


@cache
def structured(type_: type[msgspec.Struct]) -> type[Any]:
    """Return a dataclass with the fields and defaults of a Struct, in types that OmegaConf has.

    What OmegaConf cannot express (unions, and mappings of them) is `Any` in it, and checked when
    the Struct is made.

    Args:
        type_: A Struct whose annotations can be evaluated.
    """
    return _dataclass(type_, msgspec.structs.fields(type_))


def _study() -> type[Any]:
    fields = [f for f in msgspec.structs.fields(StudySpec) if f.name not in NOT_WRITTEN]
    return _dataclass(StudySpec, fields, ("objective", Any, dataclasses.field(default=MISSING)))


def _dataclass(type_: type[Any], fields: Any, *more: tuple[str, Any, Any]) -> type[Any]:
    hints = get_type_hints(type_)
    made = [(field.name, *_field(hints[field.name], field)) for field in fields]
    return dataclasses.make_dataclass(type_.__name__, [*made, *more])


def _field(hint: Any, field: Any) -> tuple[Any, Any]:
    """Return the annotation and the default of a field."""
    made = _hint(hint)
    if field.default_factory is not msgspec.NODEFAULT:
        return made, dataclasses.field(default_factory=field.default_factory)
    if field.default is msgspec.NODEFAULT:
        return made, dataclasses.field(default=MISSING)
    default = field.default
    if isinstance(default, msgspec.Struct):
        return made, dataclasses.field(default_factory=made)
    if isinstance(default, dict | list | tuple):
        data = msgspec.to_builtins(default)
        return made, dataclasses.field(default_factory=lambda: data)
    return made, dataclasses.field(default=default)


def _hint(hint: Any) -> Any:  # noqa: PLR0911 - one line for each kind of type
    origin, args = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return hint
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return structured(hint)
    if origin is Annotated:
        return _hint(args[0])
    if origin is Literal:
        return str if all(isinstance(value, str) for value in args) else Any
    if origin in (Union, types.UnionType):
        others = [arg for arg in args if arg is not type(None)]
        return Optional[_hint(others[0])] if len(others) == 1 else Any  # noqa: UP045
    if origin in (list, tuple):
        return list[_hint(args[0])]
    if origin is dict:
        return dict[str, _hint(args[1])]
    return Any


def _example(name: str) -> str:
    """Return the path of an example: in the installed package, or in the checkout."""
    here = Path(__file__).parents[2]
    installed = here / "examples"
    return str((installed if installed.is_dir() else here.parents[1] / "examples") / name)
