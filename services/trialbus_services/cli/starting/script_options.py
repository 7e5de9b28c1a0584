"""Options of a script: names, types and defaults, read without running the script's training."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec

from trialbus.errors import SpecError
from trialbus_services.cli.starting import options_probe

_TIMEOUT_S = 120.0
#: Modules whose import shows that a script reads options, so that the probe stops it there.
_READERS = frozenset({"argparse", "click", "typer", "hydra", "transformers", "trl"})


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """An option of a script."""

    name: str
    """Name without hyphens before it."""
    default: Any = None
    """Value without the option; None if there is none."""
    type: str | None = None
    """Name of the function that converts the text: `int`, `float`, ...; None for text."""
    choices: list[Any] | None = None
    """Allowed values; None for any."""
    positional: bool = False
    """Whether the value stands alone, without the name."""
    switch: bool = False
    """Whether the option has no value: there or not there."""
    negative: bool = False
    """Whether a form `--no-name` switches the option off."""
    required: bool = False
    """Whether the script ends without the option."""
    help: str = ""
    """What the script says about the option."""


class ScriptOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All options of a script."""

    kind: Literal["argparse", "click", "hydra", "none"]
    """What reads the options; `none` if nothing that is known here does."""
    options: list[Option] = []
    """The options in the order of the script."""


def read_options(script: Path) -> ScriptOptions:
    """Return the options of a script.

    The script runs up to the place where it reads its command line, and no further. A script that
    imports nothing that reads options is not run.

    Args:
        script: Path of a Python file.

    Raises:
        SpecError: The script cannot be read, is not Python, or failed before that place.
    """
    if not _READERS & _list_imports(script):
        return ScriptOptions(kind="none")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "options.json"
        command = [sys.executable, str(options_probe.__file__), str(output), str(script)]
        try:
            run = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SpecError(
                str(script), f"has read no options within {_TIMEOUT_S:g} s (expected them early)"
            ) from None
        if output.exists():
            return msgspec.json.decode(output.read_bytes(), type=ScriptOptions)
    if run.returncode:
        error = run.stderr.decode(errors="replace").strip().splitlines()
        raise SpecError(
            str(script),
            f"failed before it read its options: {error[-1] if error else run.returncode} "
            f"(expected a script that runs with {sys.executable})",
        )
    return ScriptOptions(kind="none")


def _list_imports(script: Path) -> set[str]:
    """Return the first parts of the names of all modules that a script imports."""
    try:
        tree = ast.parse(script.read_bytes(), str(script))
    except OSError as error:
        raise SpecError(str(script), f"{error.strerror} (expected a Python script)") from None
    except (SyntaxError, ValueError) as error:
        raise SpecError(str(script), f"is no Python script: {error}") from None
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    return modules
