"""Provenance of a study: config, command, versions of libraries, commit of the user's repository.

The optimizer keeps the provenance in the study's user attribute `trialbus:origin`, so that the
study can be run again years later. Secrets are masked.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import msgspec
from omegaconf import DictConfig, OmegaConf

from trialbus.study.spec import StudySpec
from trialbus_services.config.secrets import mask_secrets

_GIT_TIMEOUT_S = 5.0


def collect_origin(
    config: DictConfig,
    command: Sequence[str],
    folder: Path | None = None,
    *,
    spec: StudySpec | None = None,
) -> dict[str, Any]:
    """Return the provenance that is stored with a study.

    Args:
        config: Composed config.
        command: Command line that started the study.
        spec: Specification of the study, where another program gave it; None for the config's own.
        folder: Folder of the user's repository; None takes the current folder.

    Returns:
        `config` (a mapping), `versions` (library to version), `command` (a text) and, in a git
        repository, `git`: the `commit`, and whether tracked files are `dirty`.
    """
    # Notifiers have no influence on the study, and the address of a webhook is a secret.
    public = OmegaConf.masked_copy(config, [str(key) for key in config if key != "notify"])
    origin: dict[str, Any] = {
        "config": mask_secrets(_to_mapping(public) | (describe_spec(spec) if spec else {})),
        "versions": list_versions(),
        "command": " ".join(mask_secrets(list(command))),
    }
    commit = _read_commit(folder or Path.cwd())
    return origin | ({"git": commit} if commit else {})


def _to_mapping(config: DictConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))


def describe_spec(spec: StudySpec) -> dict[str, Any]:
    """Return the sections `study`, `sampler` and `pruner` of a config that gives a study."""
    study: dict[str, Any] = msgspec.to_builtins(spec)
    objectives = study.pop("objectives")
    components = {name: study.pop(name) for name in ("sampler", "pruner")}
    study.pop("inherited")
    return {
        "study": {**study, "objective": objectives[0] if len(objectives) == 1 else objectives},
        **{
            name: component and {"type": component["type"], **component["args"]}
            for name, component in components.items()
        },
    }


def list_versions() -> dict[str, str]:
    """Return the versions of Python, trialbus and the installed dependencies of trialbus."""
    versions = {"python": platform.python_version()}
    requirements = metadata.requires("trialbus") or []
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}
    for name in ("trialbus", *sorted(names)):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _read_commit(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a repository, and whether tracked files have changed."""
    commit = _run_git("rev-parse", "HEAD", folder=folder)
    if not commit:
        return None
    changed = _run_git("status", "--porcelain", "--untracked-files=no", folder=folder)
    return {"commit": commit, "dirty": bool(changed)}


def _run_git(*arguments: str, folder: Path) -> str | None:
    try:
        process = subprocess.run(
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None
