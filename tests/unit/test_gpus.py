"""GPUs of the slots of a worker."""

from __future__ import annotations

from typing import Any

import pytest

from trialbus import SpecError
from trialbus_services.config.settings import WorkerSettings
from trialbus_services.process import gpus


@pytest.mark.parametrize(
    ("setting", "per_trial", "slots", "expected"),
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
def test_each_slot_has_whole_gpus_or_a_share_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    setting: Any,
    per_trial: float,
    slots: int,
    expected: tuple[str, ...],
) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "7")
    assert gpus.assign_gpus(setting, per_trial, slots) == expected


def test_auto_leaves_gpus_alone_on_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "")
    assert gpus.assign_gpus("auto", 1, 8) == ()


@pytest.mark.parametrize(("n_gpus", "per_trial", "slots"), [(2, 1, 3), (1, 0.5, 3), (3, 2, 2)])
def test_more_slots_than_the_gpus_have_room_for_are_refused(
    n_gpus: int, per_trial: float, slots: int
) -> None:
    with pytest.raises(SpecError, match=rf"worker\.slots: {slots} trials .*expected at most"):
        gpus.assign_gpus(n_gpus, per_trial, slots)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("setting", [2, [4, 5], "auto"], ids=str)
def test_a_trial_that_needs_more_gpus_than_the_worker_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: Any, slots: int
) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "0,1")
    problem = r"worker\.gpus_per_trial: 4 is more than the number of GPUs of this worker, 2 by"
    with pytest.raises(SpecError, match=problem):
        gpus.assign_gpus(setting, 4, slots)


@pytest.mark.parametrize(("n_gpus", "per_trial"), [(-1, 1), (1, 0), (1, 1.5)])
def test_gpu_numbers_out_of_range_are_refused(n_gpus: int, per_trial: float) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        WorkerSettings(gpus=n_gpus, gpus_per_trial=per_trial)
