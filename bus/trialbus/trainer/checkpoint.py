"""Checkpoints of a trial, which its next attempt goes on from."""

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

from trialbus.study.folder_name import name_folder

#: Where checkpoints are kept; every machine that may run a trial again has to see it.
CHECKPOINTS_VARIABLE = "TRIALBUS_CHECKPOINTS"
_DEFAULT = ".trialbus/checkpoints"
# At the end of the name of what is being written; torch.save takes no name that begins with a dot.
_DRAFT = ".draft"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at one step.

    Attributes:
        path: File or folder, as it was written.
        step: The step given to `save`.
        value: The value given to `save`.
    """

    path: Path
    step: int
    value: float | None


class Checkpoints:
    """The checkpoints of one trial, in a folder that all its attempts share.

    Attributes:
        directory: The folder; made when something is saved.
        keep_last: How many of the newest are kept, at least one.
        keep_best_n: How many of those with the best values are kept beside them.
        mode: Whether the best value is the highest (`max`) or the lowest (`min`).

    Example:
        >>> checkpoint = trial.checkpoint.latest()  # doctest: +SKIP
        >>> begin = checkpoint.step + 1 if checkpoint else 0  # doctest: +SKIP
        >>> with trial.checkpoint.save(epoch) as path:  # doctest: +SKIP
        ...     torch.save(model.state_dict(), path)
    """

    def __init__(self, directory: Path, *, fresh: bool) -> None:
        self.directory = directory
        self.keep_last = 1
        self.keep_best_n = 0
        self.mode: Literal["min", "max"] = "max"
        if fresh and directory.exists():
            # Of a study of the same name that was deleted: this trial has never run before.
            shutil.rmtree(directory)

    @contextmanager
    def save(self, step: int, value: float | None = None) -> Generator[Path]:
        """Yield a path to write a file or a folder to; it counts once the block has ended well.

        One that is cut off leaves the others as they are. Those not to be kept are removed.

        Args:
            step: What the training has done until now; saved once more, it takes the old one's
                place.
            value: What `keep_best_n` goes by.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        draft = self.directory / f"{uuid.uuid4().hex}{_DRAFT}"
        try:
            yield draft
            _sync(draft)
            mark = "" if value is None else f"_{value!r}"
            old = [found.path for found in self.all() if found.step == step]
            final = self.directory / f"{step:010d}{mark}"
            if final.is_dir():
                _remove(final)
            draft.replace(final)
            for path in old:
                if path != final:
                    _remove(path)
        finally:
            _remove(draft)
        self._tidy()

    def latest(self) -> Checkpoint | None:
        """Return the one of the highest step, or None if there is none."""
        return max(self.all(), key=lambda found: found.step, default=None)

    def best(self) -> Checkpoint | None:
        """Return the one of the best value, or None if none has a value."""
        return next(iter(self._ranked()), None)

    def all(self) -> list[Checkpoint]:
        """Return all there are, in the order of their steps."""
        if not self.directory.is_dir():
            return []
        names = sorted(self.directory.iterdir())
        return [_parsed(path) for path in names if path.suffix != _DRAFT]

    def _ranked(self) -> list[Checkpoint]:
        valued = [found for found in self.all() if math.isfinite(_value(found))]
        return sorted(valued, key=_value, reverse=self.mode == "max")

    def _tidy(self) -> None:
        found = self.all()
        kept = {*found[-max(1, self.keep_last) :], *self._ranked()[: self.keep_best_n]}
        for checkpoint in set(found) - kept:
            _remove(checkpoint.path)


def directory_of(study: str, trial: int) -> Path:
    """Return the folder of a trial's checkpoints."""
    root = os.environ.get(CHECKPOINTS_VARIABLE, _DEFAULT)
    return Path(root).absolute() / name_folder(study) / str(trial)


def _value(checkpoint: Checkpoint) -> float:
    return math.nan if checkpoint.value is None else checkpoint.value


def _parsed(path: Path) -> Checkpoint:
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
