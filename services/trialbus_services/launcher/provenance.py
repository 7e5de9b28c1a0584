"""Where a study comes from: its config, the user's repository, the libraries, the command.

Kept with the study, as its user attribute `trialbus:origin`, so that it can be run again
years later. Passwords stay out of it.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trialbus.study.spec import is_mapping

_HIDDEN = "***"
_SENSITIVE = "(?i:password|passwd|secret|token|api_?key|access_?key|credential)"
_NAME = re.compile(_SENSITIVE)
#: `scheme://user:password@host`, and `--token=...` or `trainer.env.API_KEY=...` in a command.
_IN_URL = re.compile(r"(://[^:/@\s]*):[^@\s]+@")
_ASSIGNED = re.compile(rf"([\w.-]*{_SENSITIVE}[\w.-]*[=:])\s*[^\s,}}]+")
_GIT_S = 5.0


def origin(
    config: DictConfig, command: Sequence[str], folder: Path | None = None
) -> dict[str, Any]:
    """Return what is kept with a study of where it comes from.

    Args:
        config: The composed config.
        command: The command line that started it.
        folder: Of the user's repository; None is the current one.

    Returns:
        `config` (a mapping), `versions` (library to version), `command` (a text) and, in a
        repository of git, `git`: its `commit`, and whether tracked files are `dirty`.
    """
    # Whom to tell is no part of what ran, and the address of a webhook is a secret.
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if key != "notify"])
    found: dict[str, Any] = {
        "config": masked(OmegaConf.to_container(kept, resolve=True)),
        "versions": versions(),
        "command": masked(" ".join(command)),
    }
    git = _git(folder or Path.cwd())
    return found | ({"git": git} if git else {})


def masked(data: Any) -> Any:
    """Return plain data without passwords: those in URLs, and values whose name says that they are.

    Example:
        >>> masked({"url": "postgresql://me:hunter2@host/db", "API_KEY": "x"})
        {'url': 'postgresql://me:***@host/db', 'API_KEY': '***'}
    """
    if is_mapping(data):
        return {
            key: _HIDDEN if isinstance(value, str) and _NAME.search(key) else masked(value)
            for key, value in data.items()
        }
    if isinstance(data, list):
        return [masked(value) for value in data]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(data, str):
        return _ASSIGNED.sub(rf"\1{_HIDDEN}", _IN_URL.sub(rf"\1:{_HIDDEN}@", data))
    return data


def versions() -> dict[str, str]:
    """Return the versions of Python, of trialbus, and of what it works with, where installed."""
    found = {"python": platform.python_version()}
    requirements = metadata.requires("trialbus") or []
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}
    for name in ("trialbus", *sorted(names)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    commit = _output("rev-parse", "HEAD", folder=folder)
    if not commit:
        return None
    changed = _output("status", "--porcelain", "--untracked-files=no", folder=folder)
    return {"commit": commit, "dirty": bool(changed)}


def _output(*arguments: str, folder: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
