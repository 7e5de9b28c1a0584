"""Classes of OptunaHub, named as `optunahub:<package>` or `optunahub:<package>:<class>`."""

from __future__ import annotations

import importlib
from typing import Any

from trialbus.errors import SpecError
from trialbus.study.validation import format_expected

PREFIX = "optunahub:"


def load_hub_class(key: str, name: str, base: type[object]) -> type[object]:
    """Download a package of OptunaHub, if it is not in the cache, and return the package's class.

    Args:
        key: Dotted key that names the class, for the error.
        name: For example `optunahub:samplers/auto_sampler`.
        base: Class that the package's class inherits from.

    Raises:
        SpecError: `optunahub` is not installed, the package cannot be loaded, or it does not have
            exactly one such class and none is named.

    Source:
        `optunahub.load_module`.
    """
    package, _, class_name = name.removeprefix(PREFIX).partition(":")
    try:
        hub: Any = importlib.import_module("optunahub")
    except ImportError as error:
        raise SpecError(
            key,
            f"{name!r} needs the package optunahub, which cannot be imported: {error} "
            "(expected: pip install optunahub, where the optimizer and the command run)",
        ) from None
    try:
        module: Any = hub.load_module(package)
    except (Exception, SystemExit) as error:  # network, git, or the code of the package
        reason = str(error).strip().splitlines()
        raise SpecError(
            key,
            f"the package {package!r} cannot be loaded from OptunaHub: "
            f"{type(error).__name__}: {reason[-1] if reason else ''} (expected the name of a "
            "package such as samplers/auto_sampler, and a network or a cached copy)",
        ) from error
    classes = {
        name: value
        for name in getattr(module, "__all__", dir(module))
        if isinstance(value := getattr(module, name, None), type)
        and issubclass(value, base)
        and value.__module__.startswith("optunahub_registry")
    }
    if class_name and class_name not in classes:
        raise SpecError(
            key, f"{package!r} of OptunaHub has no {class_name!r}"
            f"{format_expected(class_name, classes)}"
        )  # fmt: skip
    if not class_name and len(classes) != 1:
        raise SpecError(
            key,
            f"{package!r} of OptunaHub has {len(classes)} classes of {base.__name__} (expected "
            f"{name}:<class>, with one of {', '.join(sorted(classes)) or 'another package'})",
        )
    return classes[class_name or next(iter(classes))]
