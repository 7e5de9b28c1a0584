"""Checkpoint: saved state of a training, from which the next attempt at the trial resumes."""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trialbus.protocol.private_folder import make_private_folder
from trialbus.protocol.start_folder import resolve_from_start
from trialbus.study.folder_name import name_folder
from trialbus.trainer.metrics import convert_step

#: Environment variable with the folder of checkpoints, which every machine of a study must see.
CHECKPOINTS_VARIABLE = "TRIALBUS_CHECKPOINTS"
_DEFAULT = ".trialbus/checkpoints"
# Suffix of a checkpoint while it is written; torch.save refuses a name that begins with a dot.
_DRAFT = ".draft"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a training at a step."""

    path: Path
    """File or folder that the training wrote."""

    step: int
    """Step that was given to `save`."""

    value: float | None
    """Value that was given to `save`; None if none was."""


class Checkpoints:
    """The checkpoints of a trial, in a folder that all attempts of the trial share.

    Attributes:
        directory: The folder; created at the first `save`.
        keep_last: Number of newest checkpoints to keep, at least one.
        keep_best_n: Number of checkpoints with the best values to keep besides the newest.
        mode: Whether the best value is the highest (`max`) or the lowest (`min`).

    Example:
        >>> checkpoint = trial.checkpoint.latest()  # doctest: +SKIP
        >>> first_step = checkpoint.step + 1 if checkpoint else 0  # doctest: +SKIP
        >>> with trial.checkpoint.save(epoch) as path:  # doctest: +SKIP
        ...     torch.save(model.state_dict(), path)
    """

    def __init__(self, directory: Path, *, fresh: bool) -> None:
        self.directory = directory
        self.keep_last = 1
        self.keep_best_n = 0
        self.mode: Literal["min", "max"] = "max"
        if fresh and directory.exists():
            # Left by a deleted study of the same name: this trial has never run before.
            shutil.rmtree(directory)

    @contextmanager
    def save(self, step: int, value: float | None = None) -> Generator[Path]:
        """Yield a path for a file or a folder, and keep the file or folder as a checkpoint.

        If the block raises, or the process dies, no checkpoint is added and the earlier checkpoints
        remain. Afterwards the checkpoints beyond `keep_last` and `keep_best_n` are removed.

        Args:
            step: Step that the training has reached; a second checkpoint of a step replaces the
                first.
            value: Value by which `best` and `keep_best_n` rank the checkpoint.
        """
        step = convert_step(step, "write save(3), or save(3, value=0.5)")
        if CHECKPOINTS_VARIABLE not in os.environ:
            make_private_folder(resolve_from_start(_DEFAULT).parent)
        self.directory.mkdir(parents=True, exist_ok=True)
        draft = self.directory / f"{uuid.uuid4().hex}{_DRAFT}"
        try:
            yield draft
            _sync(draft)
            mark = "" if value is None else f"_{value!r}"
            old_paths = [checkpoint.path for checkpoint in self.all() if checkpoint.step == step]
            final = self.directory / f"{step:010d}{mark}"
            if final.is_dir():
                _remove(final)
            draft.replace(final)
            for path in old_paths:
                if path != final:
                    _remove(path)
        finally:
            _remove(draft)
        self._remove_surplus()

    def latest(self) -> Checkpoint | None:
        """Return the checkpoint of the highest step, or None if the trial has no checkpoint."""
        return max(self.all(), key=lambda checkpoint: checkpoint.step, default=None)

    def best(self) -> Checkpoint | None:
        """Return the checkpoint of the best value, or None if no checkpoint has a value."""
        return next(iter(self._rank()), None)

    def all(self) -> list[Checkpoint]:
        """Return all checkpoints of the trial, sorted by step."""
        if not self.directory.is_dir():
            return []
        paths = sorted(self.directory.iterdir())
        return [_parse(path) for path in paths if path.suffix != _DRAFT]

    def _rank(self) -> list[Checkpoint]:
        valued = [checkpoint for checkpoint in self.all() if math.isfinite(_get_value(checkpoint))]
        return sorted(valued, key=_get_value, reverse=self.mode == "max")

    def _remove_surplus(self) -> None:
        checkpoints = self.all()
        kept = {*checkpoints[-max(1, self.keep_last) :], *self._rank()[: self.keep_best_n]}
        for checkpoint in set(checkpoints) - kept:
            _remove(checkpoint.path)


def locate_checkpoints(study: str, trial: int, start: Path | None = None) -> Path:
    """Return the absolute path of the folder of a trial's checkpoints.

    Args:
        study: Name of the study.
        trial: Number of the trial.
        start: Folder of the worker that ran the trial; None in the training itself.
    """
    path = os.environ.get(CHECKPOINTS_VARIABLE, _DEFAULT)
    root = resolve_from_start(path) if start is None else start / path
    return root / name_folder(study) / str(trial)


def _get_value(checkpoint: Checkpoint) -> float:
    return math.nan if checkpoint.value is None else checkpoint.value


def _parse(path: Path) -> Checkpoint:
    step, _, value = path.name.partition("_")
    return Checkpoint(path, int(step), float(value) if value else None)


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
