"""User code: classes and functions that a configuration names by import path.

`package.module.Class` and `package.module:function` are both understood. A path is resolved as
`python -m` would resolve it: first in the working folder of the process, then in its environment.
The working folder is in `sys.path` during the import only. A module of the user therefore imports
its neighbours at the top of the module, not inside of functions.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from trialbus.errors import SpecError
from trialbus.study.validation import find_nearest

_T = TypeVar("_T")

_IMPORT_PATH = re.compile(r"\w+(\.\w+)*[.:]\w+(\.\w+)*")
_path_lock = threading.RLock()  # reentrant: a user's module may call `load_class` on import


def load_class(key: str, path: object, base: type[_T]) -> type[_T]:
    """Import a user's class.

    Args:
        key: Dotted key of the configuration that names the class, for the error.
        path: Import path of the class, for example `my_package.samplers.MySampler`.
        base: Class that the user's class inherits from.

    Raises:
        SpecError: The class cannot be imported, or does not inherit from `base`; names the key,
            the path, and the nearest name that exists.
    """
    value = _load(key, path)
    if not (inspect.isclass(value) and issubclass(value, base)):
        package = base.__module__.partition(".")[0]
        raise SpecError(key, f"{path!r} is not a subclass of {package}'s {base.__name__}")
    return value


def load_function(key: str, path: object) -> Callable[..., Any]:
    """Import a user's function or another callable.

    Args:
        key: Dotted key of the configuration that names the function, for the error.
        path: Import path of the function, for example `my_package.figures:loss_over_size`.

    Raises:
        SpecError: The function cannot be imported, or cannot be called; names the key, the path,
            and the nearest name that exists.
    """
    value = _load(key, path)
    if not callable(value):
        raise SpecError(key, f"{path!r} is {value!r} (expected a function or a class)")
    return value


def _load(key: str, path: object) -> object:
    if not isinstance(path, str) or not _IMPORT_PATH.fullmatch(path):
        raise SpecError(
            key, f"{path!r} is not an import path (expected module.Class or module:function)"
        )
    try:
        with _working_folder_importable():
            return _resolve(path.replace(":", ".").split("."))
    except _NotFoundError as error:
        raise SpecError(key, f"{path!r} cannot be imported: {error}") from None
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise SpecError(
            key, f"{path!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


class _NotFoundError(Exception):
    """A name of an import path does not exist."""


def _resolve(names: list[str]) -> Any:
    """Return the value of a dotted path: attributes come before submodules of the same name."""
    value: Any = None
    for depth, name in enumerate(names):
        parent = value
        value = None if parent is None else getattr(parent, name, None)
        if value is None and (parent is None or isinstance(parent, ModuleType)):
            value = _import_module(".".join(names[: depth + 1]))
        if value is None:
            raise _NotFoundError(_explain_missing(parent, ".".join(names[:depth]), name))
    return value


def _import_module(path: str) -> ModuleType | None:
    """Import a module; return None if the module does not exist."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:  # an import inside of the module failed
            raise
        return None


def _explain_missing(parent: Any, parent_path: str, name: str) -> str:
    if parent is None:
        folder = str(Path.cwd())
        names = [module.name for module in pkgutil.iter_modules([folder])]
        problem = f"there is no module {name!r} in {folder!r} or the environment"
    else:
        submodules = pkgutil.iter_modules(getattr(parent, "__path__", []))
        names = [*dir(parent), *(module.name for module in submodules)]
        problem = f"{parent_path} has no {name!r}"
    near = find_nearest(name, names)
    return f"{problem}; did you mean {near!r}?" if near else problem


@contextmanager
def _working_folder_importable() -> Generator[None]:
    """Put the working folder first in `sys.path` for the time of an import."""
    folder = str(Path.cwd())
    with _path_lock:
        is_added = folder not in sys.path
        if is_added:
            sys.path.insert(0, folder)
        try:
            yield
        finally:
            if is_added:
                with suppress(ValueError):  # the module removed the folder
                    sys.path.remove(folder)
