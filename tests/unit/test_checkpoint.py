"""Checkpoints on disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from trialbus.trainer.checkpoint import Checkpoints


def save(checkpoints: Checkpoints, step: int, value: float | None = None) -> None:
    with checkpoints.save(step, value) as path:
        path.write_text(f"step {step}")


def list_steps(checkpoints: Checkpoints) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints.all()]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "s" / "0", fresh=False)


def test_another_attempt_finds_the_newest_checkpoint(
    checkpoints: Checkpoints,
) -> None:
    assert checkpoints.latest() is None
    save(checkpoints, 9)
    save(checkpoints, 10)
    checkpoint = Checkpoints(checkpoints.directory, fresh=False).latest()
    assert checkpoint
    assert (checkpoint.step, checkpoint.path.read_text()) == (10, "step 10")


def test_the_step_of_a_checkpoint_is_an_integer(checkpoints: Checkpoints) -> None:
    wrong: Any = 0.5
    with (
        pytest.raises(TypeError, match=r"step is 0.5, .*; write save\(3\)"),
        checkpoints.save(wrong),
    ):
        pass


def test_an_interrupted_save_leaves_the_earlier_checkpoint(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    with suppress(KeyboardInterrupt), checkpoints.save(2) as path:
        path.write_text("half of it")
        raise KeyboardInterrupt
    assert list_steps(checkpoints) == [1]
    assert len(list(checkpoints.directory.iterdir())) == 1


def test_the_newest_and_the_best_checkpoints_are_kept(checkpoints: Checkpoints) -> None:
    checkpoints.keep_last, checkpoints.keep_best_n, checkpoints.mode = 2, 2, "min"
    for step, value in enumerate([5.0, 1.0, 1e-7, 7.0, float("nan"), 3.0]):
        save(checkpoints, step, value)
    assert list_steps(checkpoints) == [1, 2, 4, 5]
    best = checkpoints.best()
    assert best
    assert (best.step, best.value) == (2, 1e-7)


def test_a_second_checkpoint_of_a_step_replaces_the_first(
    checkpoints: Checkpoints,
) -> None:
    save(checkpoints, 3, 0.5)
    with checkpoints.save(3, 0.25) as path:
        path.mkdir()
        (path / "weights").write_text("a folder")
    save(checkpoints, 2)
    (checkpoint,) = [c for c in checkpoints.all() if c.step == 3]
    assert (checkpoint.value, (checkpoint.path / "weights").read_text()) == (0.25, "a folder")


def test_a_new_trial_removes_the_checkpoints_of_a_deleted_study(
    checkpoints: Checkpoints,
) -> None:
    save(checkpoints, 3)
    assert Checkpoints(checkpoints.directory, fresh=True).latest() is None
