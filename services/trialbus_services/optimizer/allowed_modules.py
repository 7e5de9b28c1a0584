"""AllowedModules: the modules from which the optimizer imports classes that a study names.

A study comes from anyone who may submit one, and an import runs the code of a module. So the
operator of the optimizer allows modules, packages or single classes by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any

from trialbus.errors import SpecError
from trialbus.study.allowed_modules import contain, normalize_modules, normalize_path
from trialbus.study.spec import StudySpec
from trialbus.study.validation import is_mapping

KEY = "optimizer.allowed_modules"

#: Groups of entry points by which an installed package offers samplers and pruners.
PLUGIN_GROUPS = ("trialbus.samplers", "trialbus.pruners")

_BUILT_IN = ("optuna", "trialbus_services")


class AllowedModules:
    """The packages, modules and classes that the operator allows, and those of installed plugins.

    Args:
        names: Dotted names, besides Optuna and trialbus themselves.

    Raises:
        SpecError: A name is not a dotted name.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = (*_BUILT_IN, *normalize_modules(KEY, names))

    def check(self, key: str, path: str) -> None:
        """Refuse the import path of a class that no allowed module contains.

        Args:
            key: Dotted key of the study that names the class, for the error.
            path: Import path of the class.

        Raises:
            SpecError: The class is not allowed; nothing was imported.
        """
        if not (contain(self._names, path) or contain(_list_plugin_modules(), path)):
            module = normalize_path(path)
            module = module if path.startswith("optunahub:") else module.rpartition(".")[0]
            raise SpecError(
                key,
                f"{path!r} is of a module that this optimizer may not import; whoever runs the "
                f"optimizer can allow it with {KEY}=[{module}]",
            )


def find_class_paths(spec: StudySpec) -> list[str]:
    """Return the import paths that the sampler and the pruner of a study name, without Optuna's."""
    components = [spec.sampler] if spec.pruner is None else [spec.sampler, spec.pruner]
    paths = [path for c in components for path in (c.type, *_find_paths(c.args))]
    return sorted({normalize_path(path) for path in paths if "." in path or ":" in path})


def _list_plugin_modules() -> list[str]:
    """Return the modules of the samplers and pruners that installed packages offer."""
    return [entry.module for group in PLUGIN_GROUPS for entry in entry_points(group=group)]


def _find_paths(value: Any) -> Iterator[str]:
    """Yield the class of each part in the arguments of a sampler or pruner."""
    for part in value.values() if is_mapping(value) else ():
        if is_mapping(part):
            yield from (str(part[name]) for name in ("type", "_target_") if name in part)
            yield from _find_paths(part)
