"""Crash images of a ring: no altered event is read, and no loss goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.ring_damage import read_damaged_images
from support.rings import use_ring_directory
from trialbus.client import shared_ring

ENDPOINT = "ipc:///test-ring-damage"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_ring_directory(tmp_path, monkeypatch)


def test_of_a_thousand_damaged_images_none_delivers_an_altered_event_or_loses_one_silently() -> (
    None
):
    outcomes = read_damaged_images(ENDPOINT, 1000, seed=1)
    assert outcomes["silent"] == outcomes["altered"] == outcomes["lost before the damage"] == 0
    assert outcomes["noticed"] > 600
    assert outcomes["read after the damage"] > 100
    assert min(outcomes[kind] for kind in ("flip", "tear", "cut")) > 200


def test_without_checksums_damaged_images_deliver_altered_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check_nothing(*_: object) -> int:
        return 0

    monkeypatch.setattr(shared_ring, "crc32", check_nothing)
    outcomes = read_damaged_images(ENDPOINT, 200, seed=1)
    assert outcomes["silent"] > 0
    assert outcomes["altered"] > 0
