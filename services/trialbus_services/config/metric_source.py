"""Metric source: where a program that knows nothing of trialbus leaves its metrics."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Literal, TypeAlias

import msgspec

from trialbus.study.validation import format_expected

FileFormat: TypeAlias = Literal["csv", "json", "jsonl"]

_FORMATS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
STEP_GROUP = "step"
"""Name of the regular expression's group that is the step."""


class MetricSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where an untouched program leaves its metrics: `stdout`, `file` or `tensorboard`."""

    stdout: str | None = None
    """Regular expression of the output's lines that hold metrics, or `json` for lines that are JSON
    mappings. Each named group is a metric, the group `step` the step:
    `'epoch (?P<step>\\d+) .* acc=(?P<accuracy>\\S+)'`."""
    file: str | None = None
    """File that the program writes while it trains, for example `'{run_dir}/metrics.csv'`. The
    placeholders are those of `trainer.command`."""
    tensorboard: str | None = None
    """Folder of TensorBoard event files, with all folders in it; scalars are metrics."""
    format: FileFormat | None = None
    """Format of `file`: `csv` with a header, `jsonl` (a JSON mapping per line) or `json` (a list of
    mappings, or one mapping, written anew each time); null takes the file's suffix."""
    step: str | None = None
    """Column or key that is the step; null takes the first that is there of `step`, `epoch`,
    `global_step` and `iteration`, and otherwise counts from 0."""
    names: dict[str, str] = {}
    """Metric by group, column, key or tag, for metrics that are to have another name:
    `{val_acc: val/accuracy}`."""

    def __post_init__(self) -> None:
        places = [
            name for name in ("stdout", "file", "tensorboard") if getattr(self, name) is not None
        ]
        if len(places) != 1:
            raise ValueError(
                f"{' and '.join(places) or 'nothing'} is given "
                "(expected one of stdout, file and tensorboard; several sources are a list)"
            )
        for name in places:
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty (expected where the program leaves its metrics)")
        if self.stdout is not None and self.stdout != "json":
            _check_pattern(self.stdout)
            for group in self.names:
                if group not in self._groups:
                    raise ValueError(
                        f"names.{group} is no group of the regular expression"
                        f"{format_expected(group, sorted(self._groups))}"
                    )
        if self.format is not None and self.file is None:
            raise ValueError(f"format {self.format!r} is for a file (there is {places[0]})")
        if self.file is not None and self.file_format is None:
            raise ValueError(
                f"file {self.file!r} has no suffix of a known format "
                "(expected .csv, .json or .jsonl, or a format beside it: csv, json or jsonl)"
            )

    @property
    def file_format(self) -> FileFormat | None:
        """Format of `file`; None if there is no file, or its suffix is not known."""
        if self.file is None:
            return None
        return self.format or _FORMATS.get(PurePath(self.file).suffix.lower())

    @property
    def known_metrics(self) -> set[str]:
        """Metrics that are known before the program runs; a file may have more."""
        return {self.names.get(group, group) for group in self._groups} | {*self.names.values()}

    def can_give(self, metric: str) -> bool:
        """Tell whether the source can give a metric, as far as this is known beforehand."""
        if metric in self.known_metrics:
            return True
        # Of JSON, CSV and TensorBoard any name may come that is not given to the step or renamed.
        return not self._groups and metric != self.step and metric not in self.names

    @property
    def _groups(self) -> set[str]:
        """Named groups of the regular expression without the step; empty for other sources."""
        if self.stdout is None or self.stdout == "json":
            return set()
        return set(re.compile(self.stdout).groupindex) - {STEP_GROUP}

    def __str__(self) -> str:
        """Return the source as people write it, for log lines."""
        if self.stdout is not None:
            return f"stdout: {self.stdout}"
        return f"file: {self.file}" if self.file else f"tensorboard: {self.tensorboard}"


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(
            f"stdout {pattern!r} is no regular expression: {error} (expected one, or json)"
        ) from None
    if not set(groups) - {STEP_GROUP}:
        raise ValueError(
            f"stdout {pattern!r} has no named group for a metric "
            "(expected (?P<name>...) around the number, for example loss=(?P<loss>\\S+))"
        )
