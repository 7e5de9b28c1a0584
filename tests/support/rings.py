"""A folder of rings for one test, away from the rings of this user's publishers."""

from __future__ import annotations

from pathlib import Path

import pytest

from trialbus.client import ring_directory


def use_ring_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the rings of every endpoint lie in `path/user/hub`, and return that folder."""
    directory = path / "user" / "hub"

    def locate(_: str) -> Path:
        return directory

    monkeypatch.setattr(ring_directory, "ring_directory", locate)
    return directory
