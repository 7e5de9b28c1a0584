"""Checkpoints on disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from trialbus.trainer.checkpoint import Checkpoints


def save(checkpoints: Checkpoints, step: int, value: float | None = None) -> None:
    with checkpoints.save(step, value) as path:
        path.write_text(f"step {step}")


def kept(checkpoints: Checkpoints) -> list[int]:
    return [found.step for found in checkpoints.all()]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "s" / "0", fresh=False)


def test_the_newest_is_found_again_by_another_attempt(
    checkpoints: Checkpoints,
) -> None:
    assert checkpoints.latest() is None
    save(checkpoints, 9)
    save(checkpoints, 10)
    found = Checkpoints(checkpoints.directory, fresh=False).latest()
    assert found
    assert (found.step, found.path.read_text()) == (10, "step 10")


def test_one_that_is_cut_off_leaves_the_one_before(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    with suppress(KeyboardInterrupt), checkpoints.save(2) as path:
        path.write_text("half of it")
        raise KeyboardInterrupt
    assert kept(checkpoints) == [1]
    assert len(list(checkpoints.directory.iterdir())) == 1


def test_the_newest_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    checkpoints.keep_last, checkpoints.keep_best_n, checkpoints.mode = 2, 2, "min"
    for step, value in enumerate([5.0, 1.0, 1e-7, 7.0, float("nan"), 3.0]):
        save(checkpoints, step, value)
    assert kept(checkpoints) == [1, 2, 4, 5]
    best = checkpoints.best()
    assert best
    assert (best.step, best.value) == (2, 1e-7)


def test_a_step_that_is_saved_again_takes_the_place_of_the_old_one(
    checkpoints: Checkpoints,
) -> None:
    save(checkpoints, 3, 0.5)
    with checkpoints.save(3, 0.25) as path:
        path.mkdir()
        (path / "weights").write_text("a folder")
    save(checkpoints, 2)
    (found,) = [each for each in checkpoints.all() if each.step == 3]
    assert (found.value, (found.path / "weights").read_text()) == (0.25, "a folder")


def test_a_trial_that_has_never_run_begins_without_those_of_a_study_that_was_deleted(
    checkpoints: Checkpoints,
) -> None:
    save(checkpoints, 3)
    assert Checkpoints(checkpoints.directory, fresh=True).latest() is None
