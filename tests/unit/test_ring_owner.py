"""Rings that another user could have written are neither created nor read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import trialbus
from support.rings import use_ring_directory
from trialbus.client.ring_directory import adopt_rings, create_ring, lock_directory

ENDPOINT = "ipc:///test-ring-owner"
PUBLISHER = bytes(range(16))
OTHER_USER = 12345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_ring_directory(tmp_path, monkeypatch)


def leave_ring() -> Path:
    """Leave a ring with an event, like a dead process."""
    ring = create_ring(ENDPOINT, PUBLISHER, 4096)
    assert ring is not None
    ring.append(1, b"t/s/0", b"\x80")
    ring.close()
    return ring.path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_only_the_user_can_read_the_folder_and_the_ring(directory: Path) -> None:
    umask = os.umask(0)
    try:
        path = leave_ring()
        lock = lock_directory(ENDPOINT)
    finally:
        os.umask(umask)
    assert lock is not None
    os.close(lock)
    assert [mode(path) for path in (directory.parent, directory)] == [0o700, 0o700]
    assert [mode(path) for path in (path, directory / "adopter")] == [0o600, 0o600]


@as_root
def test_the_ring_of_another_user_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    path = leave_ring()
    os.chown(path, OTHER_USER, OTHER_USER)
    assert list(adopt_rings(ENDPOINT)) == []
    assert f"belongs to the user with id {OTHER_USER}" in caplog.text
    assert path.with_suffix(".refused").exists()


def test_a_ring_that_others_can_open_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    path = leave_ring()
    path.chmod(0o666)
    assert list(adopt_rings(ENDPOINT)) == []
    assert "has the mode 666, not 600" in caplog.text
    assert path.with_suffix(".refused").exists()


def test_a_link_to_a_ring_is_not_followed(tmp_path: Path) -> None:
    path = leave_ring()
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    assert list(adopt_rings(ENDPOINT)) == []
    assert path.with_suffix(".refused").is_symlink()


@as_root
@pytest.mark.parametrize("level", ["user", "hub"])
def test_a_folder_of_another_user_is_not_used(
    directory: Path, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    leave_ring()
    os.chown(directory if level == "hub" else directory.parent, OTHER_USER, OTHER_USER)
    assert create_ring(ENDPOINT, PUBLISHER) is None
    assert f"belongs to the user with id {OTHER_USER}" in caplog.text
    assert list(adopt_rings(ENDPOINT)) == []
    assert lock_directory(ENDPOINT) is None


def test_a_folder_that_is_a_link_is_not_used_and_the_training_goes_on(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trap").mkdir()
    directory.parent.symlink_to(tmp_path / "trap")
    with trialbus.Publisher(f"ipc://{tmp_path}/hub.sock") as publisher:
        assert not publisher.survives
        assert publisher.publish(trialbus.Stop(study="s")) == 1
        publisher.close(timeout_s=0)
    assert "is not a folder" in caplog.text
    assert not list((tmp_path / "trap").iterdir())


def test_the_user_s_folder_is_closed_to_others(directory: Path) -> None:
    leave_ring()
    directory.parent.chmod(0o755)
    ((ring, _),) = adopt_rings(ENDPOINT)
    ring.close()
    assert mode(directory.parent) == 0o700
