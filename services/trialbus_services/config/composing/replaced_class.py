"""Classes that were replaced: arguments of a group's class, which another class does not get."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, open_dict

_GROUPS = ("sampler", "pruner")
_TYPE = "type"


def drop_replaced_arguments(config: DictConfig, loader: Any) -> None:
    """Remove the arguments of a group's file whose class another file, or an override, replaced.

    A phase that writes `pruner: {type: HyperbandPruner, min_resource: 2}` would have the arguments
    of `pruner=median`, too, which Hydra merges. Arguments with values of their own stay.

    Args:
        config: Composed config, with the section `hydra`.
        loader: Loader that composed the config, Hydra's `ConfigLoaderImpl`.
    """
    for group in _GROUPS:
        section = config.get(group)
        choice = config.hydra.runtime.choices.get(group)
        if not isinstance(section, DictConfig) or choice is None:
            continue
        result = loader.repository.load_config(f"{group}/{choice}")
        chosen = result.config if result is not None else None
        if not isinstance(chosen, DictConfig):
            continue
        # A file without a class extends another file, and is meant for the class of that file.
        if chosen.get(_TYPE) in (None, section.get(_TYPE)):
            continue
        with open_dict(section):
            for name, value in chosen.items_ex(resolve=False):
                if name != _TYPE and section.get(name) == value:
                    del section[name]
