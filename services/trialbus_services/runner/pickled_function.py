"""Pickled function: a function of a script or a notebook, in a file for the worker's processes."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trialbus.errors import SpecError
from trialbus.protocol.private_folder import make_private_folder
from trialbus_services.config.settings import PICKLE_SUFFIX

_EXTRA = "pip install 'trialbus[notebook]'"


def is_importable(function: Callable[..., Any]) -> bool:
    """Tell whether another process can import a function, without the script that defines it."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    name = getattr(function, "__qualname__", "")
    return (
        module is not None
        and module.__name__ != "__main__"
        and getattr(module, "__file__", None) is not None
        and getattr(module, name, None) is function
    )


def write_function(function: Callable[..., Any], folder: Path) -> Path:
    """Write a function into a file that the process which forks trainings reads.

    Functions, classes and values of the script or notebook are written by value, and whatever a
    module can import by name.

    Args:
        function: A function, method, `functools.partial`, or an object that can be called.
        folder: Folder of the file, for this user alone.

    Raises:
        SpecError: `cloudpickle` is not installed, or something that the function uses cannot be
            pickled.
    """
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")
    except ImportError:
        raise SpecError(
            "function",
            f"{_name(function)} is defined in a script or notebook, and needs cloudpickle to "
            f"travel to the worker's processes ({_EXTRA}, or define it in a module)",
        ) from None
    try:
        data: bytes = cloudpickle.dumps(function)
    except Exception as error:
        raise SpecError(
            "function",
            f"{_name(function)} cannot travel to the worker's processes: "
            f"{type(error).__name__}: {error} (expected a function that makes inside what cannot "
            "be copied, such as locks, files, connections and generators)",
        ) from error
    make_private_folder(folder)
    path = folder / f"function{PICKLE_SUFFIX}"
    path.write_bytes(data)
    return path


def build_search_path() -> str:
    """Return the `PYTHONPATH` with which another process imports what this process can import."""
    folders = [str(Path(folder).absolute()) for folder in sys.path if Path(folder or ".").is_dir()]
    prefixes = {sys.prefix, sys.base_prefix}
    own = [
        folder
        for folder in folders
        if not any(Path(folder).is_relative_to(prefix) for prefix in prefixes)
    ]
    return os.pathsep.join(dict.fromkeys(own))


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    try:
        place = inspect.getsourcefile(function)
    except TypeError:
        place = None
    return f"{name} of {place}" if place else name
