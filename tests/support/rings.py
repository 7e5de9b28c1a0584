"""A folder of rings for a test, apart from the rings of this user's publishers."""

from __future__ import annotations

from pathlib import Path

import pytest

from trialbus.client import ring_directory


def use_ring_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use `path/user/hub` as the folder of every endpoint's rings, and return the folder."""
    directory = path / "user" / "hub"

    def locate(_: str) -> Path:
        return directory

    monkeypatch.setattr(ring_directory, "locate_ring_directory", locate)
    return directory
