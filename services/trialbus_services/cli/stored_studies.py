"""Stored studies: where a command that needs no bus finds the studies that its user names."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from trialbus_services.config import sections, settings
from trialbus_services.config.composed_config import ComposedConfig
from trialbus_services.config.composing import compose_config
from trialbus_services.config.composing.study_file import is_study_file
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.reporter.storage_reader import list_study_names, load_study, open_storage

_OVERRIDE = re.compile(r"[+~]*[\w./@-]+=")


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a storage to a parser."""
    parser.add_argument("--storage", help="a storage's URL, or a SQLite or journal file")
    parser.add_argument("--config-dir", type=Path, help="a user's config tree")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of Hydra among arguments, and the other arguments."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    overrides = [argument for argument in arguments[:end] if _OVERRIDE.match(argument)]
    overrides = [argument for argument in overrides if not argument.startswith("-")]
    others = [argument for argument in arguments[:end] if argument not in overrides]
    return overrides, [*others, *arguments[end:]]


@dataclass(frozen=True)
class StoredStudies:
    """The studies of a storage, and the config with which a user's command names the storage."""

    composed: ComposedConfig
    """The config."""
    url: str
    """URL or file of the storage."""
    file_study: str | None
    """Name of the study of the study file on the command line; None without such a file."""

    @cached_property
    def storage(self) -> BaseStorage:
        """The storage, opened for reading.

        Raises:
            SpecError: There is no such storage.
        """
        return open_storage(self.url)

    def list_names(self) -> list[str]:
        """Return the names of all studies, sorted."""
        return list_study_names(self.storage, self.url)

    def load(self, names: Sequence[str]) -> list[optuna.Study]:
        """Return the studies of these names, each once; a study file stands for its study.

        Raises:
            SpecError: The storage has no study of a name.
        """
        studies = [self.file_study or name if is_study_file(name) else name for name in names]
        return [load_study(name, self.storage, self.url) for name in dict.fromkeys(studies)]

    def print_names(self) -> None:
        """Ask on standard error which study is meant, and list all studies."""
        names = self.list_names()
        print(f"error: which study? {mask_secrets(self.url)!r} has:", file=sys.stderr)
        print("\n".join(names) or "none", file=sys.stderr)


@contextmanager
def compose_studies(
    options: argparse.Namespace, overrides: Sequence[str], names: Sequence[str]
) -> Generator[StoredStudies]:
    """Compose the config that names a storage; errors of the block name where a value was set.

    Args:
        options: Options that `add_storage` added.
        overrides: Overrides of the config.
        names: Names of studies, and at most one study file, which the config then stands on.

    Raises:
        SpecError: A value of the configuration cannot be used.
    """
    tree = [] if options.config_dir is None else [f"--config-dir={options.config_dir}"]
    files = [name for name in names if is_study_file(name)]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with compose_config([*tree, *files, *overrides]) as composed:
        section = sections.read_section(composed.config, settings.StorageSettings)
        url = options.storage or section.url
        study = sections.read_study(composed.config).name if files else None
        yield StoredStudies(composed, url, study)
