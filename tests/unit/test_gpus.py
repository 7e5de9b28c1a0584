"""Which GPUs the slots of a worker have."""

from __future__ import annotations

from typing import Any

import pytest

from trialbus import SpecError
from trialbus_services.config.settings import WorkerSettings
from trialbus_services.process import gpus


@pytest.mark.parametrize(
    ("here", "per_trial", "slots", "expected"),
    [
        (None, 1, 2, ()),
        (2, 1, 2, ("0", "1")),
        ([3, 5], 1, 2, ("3", "5")),
        (["GPU-a", "GPU-b"], 0.5, 3, ("GPU-a", "GPU-a", "GPU-b")),
        (1, 0.1, 10, ("0",) * 10),
        ([4, 5, 6, 7], 2, 2, ("4,5", "6,7")),
        ("auto", 1, 1, ("7",)),
    ],
    ids=str,
)
def test_each_slot_has_its_own_gpus_or_its_share_of_one(
    monkeypatch: pytest.MonkeyPatch,
    here: Any,
    per_trial: float,
    slots: int,
    expected: tuple[str, ...],
) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "7")
    assert gpus.devices(here, per_trial, slots) == expected


def test_without_any_auto_leaves_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "")
    assert gpus.devices("auto", 1, 8) == ()


@pytest.mark.parametrize(("here", "per_trial", "slots"), [(2, 1, 3), (1, 0.5, 3), (3, 2, 2)])
def test_more_slots_than_there_is_room_for_are_refused(
    here: int, per_trial: float, slots: int
) -> None:
    with pytest.raises(SpecError, match=rf"worker\.slots: {slots} trials .*expected at most"):
        gpus.devices(here, per_trial, slots)


@pytest.mark.parametrize(("here", "per_trial"), [(-1, 1), (1, 0), (1, 1.5)])
def test_numbers_that_mean_nothing_are_refused(here: int, per_trial: float) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        WorkerSettings(gpus=here, gpus_per_trial=per_trial)
