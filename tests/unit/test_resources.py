"""Resources of a worker's slots."""

from __future__ import annotations

import os

import pytest

from trialbus_services.worker.resources import measure_slot


def test_slots_share_the_machine_in_equal_parts() -> None:
    one, two = measure_slot(1, 1), measure_slot(2, 0.5)
    assert one.keys() == {"gpus", "cpus", "memory_gb"}
    assert (one["gpus"], two["gpus"]) == (1, 0.5)
    assert two["cpus"] == pytest.approx(one["cpus"] / 2)
    assert two["memory_gb"] == pytest.approx(one["memory_gb"] / 2, abs=0.1)


def test_memory_that_is_unknown_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", refuse)
    assert measure_slot(1, 0).keys() == {"gpus", "cpus"}
