"""A list of keys that cannot be read, whatever is in its place, leaves the list before in force."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trialbus.errors import SpecError
from trialbus.protocol.security import Gatekeeper, create_keys, load_keys


def put_file_for_folder(allowed: Path) -> None:
    shutil.rmtree(allowed.parent)
    allowed.parent.write_text("")


def put_folder(allowed: Path) -> None:
    allowed.unlink()
    allowed.mkdir()


def put_loop(allowed: Path) -> None:
    allowed.unlink()
    allowed.symlink_to(allowed)


def put_latin_1(allowed: Path) -> None:
    allowed.write_bytes('{"key": {"name": "Jürgen", "role": "service"}}'.encode("latin-1"))


def put_deep_nesting(allowed: Path) -> None:
    allowed.write_bytes(b'{"a":' * 100_000)


def put_nothing(allowed: Path) -> None:
    allowed.write_bytes(b"")


DAMAGE = [
    put_file_for_folder,
    put_folder,
    put_loop,
    put_latin_1,
    put_deep_nesting,
    put_nothing,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_list_of_keys_that_cannot_be_read_leaves_the_one_before_in_force(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "keys"
    create_keys(folder, "hub", "service")
    public = load_keys(create_keys(folder, "me", "listener")).public
    gatekeeper = Gatekeeper(folder)
    damage(folder / "allowed.json")
    for _ in range(2):
        grant = gatekeeper.grant(public)
        assert grant is not None
        assert grant.role == "listener"
    assert gatekeeper.callback("domain", public.encode())
    (message,) = caplog.messages
    assert "allowed.json" in message
    assert "the previous list stays in force" in message


@pytest.mark.parametrize("damage", [put_folder, put_loop, put_latin_1])
def test_a_key_file_that_cannot_be_read_is_named(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = create_keys(tmp_path, "me", "listener")
    damage(path)
    if path.is_dir():
        path.chmod(0o700)
    with pytest.raises(SpecError, match=r"me\.key"):
        load_keys(path)
