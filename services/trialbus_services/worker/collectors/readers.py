"""Readers: one for each form in which a program leaves its metrics."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from trialbus.study.validation import is_mapping
from trialbus_services.config.metric_source import STEP_GROUP, MetricSource
from trialbus_services.worker.collectors.growing_file import GrowingFile

_STEP_NAMES = ("step", "epoch", "global_step", "iteration")


@dataclass(frozen=True)
class StepReading:
    """Metrics of one step that a program left."""

    step: int | None
    """Step; None if the program does not tell."""
    metrics: dict[str, float]
    """Value of each metric by the name that the program uses; may be empty."""


class Reader(Protocol):
    """Reads what a program has left since the last call."""

    def read(self, *, is_complete: bool) -> list[StepReading]:
        """Return the new readings, in order.

        Args:
            is_complete: Whether the program has ended, so that nothing is added any more.

        Raises:
            OSError: A file cannot be read.
        """
        ...


class PatternReader:
    """Reads the lines of a text file that a regular expression matches.

    Args:
        path: Path of the file.
        pattern: Regular expression with a named group for each metric.
    """

    def __init__(self, path: Path, pattern: str) -> None:
        self._file = GrowingFile(path)
        self._pattern = re.compile(pattern)

    def read(self, *, is_complete: bool) -> list[StepReading]:
        """Return a reading for each line that matches."""
        matches = map(self._pattern.search, self._file.read_lines(is_complete=is_complete))
        return [make_reading(match.groupdict(), STEP_GROUP) for match in matches if match]


class JsonLinesReader:
    """Reads the lines of a text file that are JSON mappings; other lines are passed over.

    Args:
        path: Path of the file.
        step: Key of the step; None for the usual ones.
    """

    def __init__(self, path: Path, step: str | None) -> None:
        self._file = GrowingFile(path)
        self._step = step

    def read(self, *, is_complete: bool) -> list[StepReading]:
        """Return a reading for each line that is a mapping."""
        rows = map(_parse_json, self._file.read_lines(is_complete=is_complete))
        return [make_reading(row, self._step) for row in rows if is_mapping(row)]


class CsvReader:
    """Reads the rows of a CSV file with a header.

    Args:
        path: Path of the file.
        step: Column of the step; None for the usual ones.
    """

    def __init__(self, path: Path, step: str | None) -> None:
        self._file = GrowingFile(path)
        self._step = step

    def read(self, *, is_complete: bool) -> list[StepReading]:
        """Return a reading for each row."""
        header = self._file.read_first_line()
        if header is None:
            return []
        # Read after the header: a file that was written anew in between has another one.
        lines = self._file.read_lines(is_complete=is_complete)
        columns = [column.strip() for column in next(csv.reader([header]), list[str]())]
        rows = (row for row in csv.reader(line for line in lines if line != header) if row)
        return [make_reading(dict(zip(columns, row, strict=False)), self._step) for row in rows]


class JsonReader:
    """Reads a JSON file that a program writes anew each time.

    The file holds a list of mappings, a mapping of lists as long as each other (as the history of
    Keras is), or one mapping.

    Args:
        path: Path of the file.
        step: Key of the step; None for the usual ones.
    """

    def __init__(self, path: Path, step: str | None) -> None:
        self._path = path
        self._step = step
        self._n_read = 0
        self._last: object = None
        self._state: tuple[int, int, int] | None = None
        self._state = self._look()

    def read(self, *, is_complete: bool) -> list[StepReading]:
        """Return a reading for each mapping that is new."""
        state = self._look()
        if state is None or state == self._state:
            return []
        data = _parse_json(self._path.read_text(errors="replace"))
        if data is None:  # written at this moment
            return []
        self._state = state
        rows = _list_rows(data)
        if rows is None:
            if data == self._last or not is_mapping(data):
                return []
            self._last = data
            return [make_reading(data, self._step)]
        if len(rows) < self._n_read:
            self._n_read = 0
        new, self._n_read = rows[self._n_read :], len(rows)
        return [make_reading(row, self._step) for row in new]

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def open_reader(source: MetricSource, path: Path) -> Reader:
    """Return the reader of a source.

    Args:
        source: Settings of the source.
        path: File or folder of the source; for `stdout` the file that holds the output.

    Raises:
        ImportError: The source is TensorBoard's, and the package is not installed.
    """
    if source.stdout is not None and source.stdout != "json":
        return PatternReader(path, source.stdout)
    if source.tensorboard is not None:
        # Takes half a second to import.
        from trialbus_services.worker.collectors.tensorboard_reader import TensorBoardReader

        return TensorBoardReader(path)
    match source.file_format or "jsonl":
        case "csv":
            return CsvReader(path, source.step)
        case "json":
            return JsonReader(path, source.step)
        case "jsonl":
            return JsonLinesReader(path, source.step)


def make_reading(row: Mapping[str, Any], step_name: str | None) -> StepReading:
    """Return the numbers of a row by name; what is no number is left out.

    Numbers may be text, also with a percent sign or a comma behind them. Names of nested mappings
    are joined with `/`.

    Args:
        row: Values by name.
        step_name: Name of the step; None takes the first of the usual names that is there.

    Example:
        >>> make_reading({"epoch": "3", "acc": "0.9,", "lr": "high"}, None)
        StepReading(step=3, metrics={'acc': 0.9})
    """
    numbers = dict(_flatten_numbers("", row))
    names = _STEP_NAMES if step_name is None else (step_name,)
    for name in names:
        value = numbers.get(name)
        if value is not None and value >= 0 and value.is_integer():
            del numbers[name]
            return StepReading(int(value), numbers)
    return StepReading(None, numbers)


def _flatten_numbers(prefix: str, row: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in row.items():
        key = f"{prefix}{name}"
        if is_mapping(value):
            yield from _flatten_numbers(f"{key}/", value)
        elif key:
            number = _convert_number(value)
            if number is not None:
                yield key, number


def _convert_number(value: object) -> float | None:
    if isinstance(value, str):
        value = value.strip().rstrip("%,;")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _list_rows(data: Any) -> list[Mapping[str, Any]] | None:
    """Return the rows of a list of mappings or of a mapping of lists; None for anything else."""
    if isinstance(data, list):
        return [row for row in cast(list[Any], data) if is_mapping(row)]
    if is_mapping(data) and data and all(isinstance(column, list) for column in data.values()):
        columns = cast(Mapping[str, list[Any]], data)
        n_rows = min(map(len, columns.values()))
        return [{name: column[i] for name, column in columns.items()} for i in range(n_rows)]
    return None
