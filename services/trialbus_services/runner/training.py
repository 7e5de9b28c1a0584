"""The training function or command of a runner, as overrides for the worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from trialbus.errors import SpecError, TrialbusError
from trialbus.trainer.trial import Trial
from trialbus_services.worker.command_line import quote_for_hydra

#: A command, `module:function`, or a function at the top level of a module.
Training: TypeAlias = Sequence[str] | str | Callable[[Trial], Any]

_IMPORT_VARIABLE = "TRIALBUS_RUNNER_IMPORTS"


def build_overrides(training: Training, folder: Path) -> list[str]:
    """Return the overrides that make a worker run a training.

    A function runs as `trainer=function` does: in a process of its own for each trial, forked from
    one that has imported its module. So trials run side by side, an interrupted or hanging one can
    be ended, and what one leaves behind harms no other; in this process none of that would hold.

    Args:
        training: What to run.
        folder: Where the module of `module:function` is looked for first.

    Raises:
        SpecError: The function cannot be imported by another process; says what to do.
    """
    if callable(training):
        training, folder = _locate_function(training)
    if not isinstance(training, str):
        return ["trainer=command", f"trainer.command=[{','.join(map(quote_for_hydra, training))}]"]
    path = os.pathsep.join(filter(None, [str(folder.absolute()), os.environ.get("PYTHONPATH")]))
    return [
        "trainer=function",
        f"trainer.function={quote_for_hydra(training)}",
        f"+trainer.env.PYTHONPATH={quote_for_hydra(path)}",
        f"+trainer.env.{_IMPORT_VARIABLE}='1'",
    ]


def check_not_imported() -> None:
    """Refuse to run studies while a worker imports the module of a training.

    Raises:
        TrialbusError: A worker imports the module of this caller.
    """
    if os.environ.get(_IMPORT_VARIABLE):
        raise TrialbusError(
            "the module of the training runs studies itself when it is imported; put that "
            'part under `if __name__ == "__main__":`'
        )


def _locate_function(function: Callable[..., Any]) -> tuple[str, Path]:
    """Return `module:function` of a function, and the folder that holds the module."""
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    if not name.isidentifier() or module is None or file is None:
        raise SpecError(
            "trainer",
            f"{function!r} cannot be imported by another process (expected a function at the top "
            "level of a .py file)",
        )
    path = Path(file)
    if module.__name__ == "__main__":
        return f"{path.stem}:{name}", path.parent
    depth = module.__name__.count(".") + (path.stem == "__init__")
    return f"{module.__name__}:{name}", path.parents[depth]
