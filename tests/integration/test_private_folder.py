"""The folder of a bus: only its user can enter it and read its files, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import trialbus
from support.client import Client
from support.commands import small_study
from support.monitor import Page
from support.processes import Bus
from trialbus.protocol import security
from trialbus.protocol.private_folder import make_private_folder, open_private_log
from trialbus.trainer.artifacts import store_artifact


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """A umask that takes nothing away, for this process and all that it starts."""
    umask = os.umask(0)
    yield
    os.umask(umask)


def list_open_paths(folder: Path) -> list[str]:
    """Return the modes and paths of folders that are not 0700 and of files that are not 0600."""
    paths = [folder, *folder.rglob("*")]
    modes = [(path, stat.S_IMODE(path.lstat().st_mode)) for path in paths]
    return [
        f"{mode:o} {path}" for path, mode in modes if mode != (0o700 if path.is_dir() else 0o600)
    ]


@pytest.mark.parametrize(
    "trainer",
    [["trainer.params_as=file"], ["trainer.command=[]", "trainer.function=train:main"]],
)
def test_a_study_leaves_a_bus_folder_that_is_closed_to_others(bus: Bus, trainer: list[str]) -> None:
    (bus.directory / "train.py").write_text("def main(trial):\n    trial.report(0, {'loss': 1})\n")
    study = bus.service(
        "study",
        *small_study(n_trials=2),
        *trainer,
        "bus.dir=.trialbus",
        "bus.endpoint=ipc://.trialbus/hub.sock",
    )
    folder = bus.directory / ".trialbus"
    assert study.wait(60) == 0, study.printed()
    names = {path.name for path in folder.rglob("*")}
    assert {"events.db", "hub.log", "optimizer.log", "worker.log", "reporter.log"} <= names
    assert "0-0.log" in names
    assert list_open_paths(folder) == []


def test_a_hub_closes_the_folder_of_an_earlier_version_and_its_socket(bus: Bus) -> None:
    folder = bus.directory / "log"
    folder.mkdir(mode=0o755)
    bus.endpoint = f"ipc://{folder}/hub.sock"
    bus.hub()
    client = Client(bus)
    client.submit()
    Page(bus)
    client.close()
    assert list_open_paths(folder) == []


def test_keys_and_artifacts_are_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIALBUS_FOLDER", str(tmp_path))
    (tmp_path / "model").write_text("weights")
    security.create_keys(Path(".trialbus/keys"), "hub", "service")
    store_artifact(tmp_path / "model", study="s", trial=0, attempt=0)
    with trialbus.attach() as trial, trial.checkpoint.save(0) as path:
        path.touch(0o600)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / ".trialbus").iterdir()]
    assert stat.S_IMODE((tmp_path / ".trialbus").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / ".trialbus" / "artifacts").stat().st_mode) == 0o700
    assert modes
    assert list_open_paths(tmp_path / ".trialbus" / "artifacts") == []
    assert list_open_paths(tmp_path / ".trialbus" / "keys") == []


def test_a_folder_that_the_user_works_in_keeps_its_mode_and_the_log_in_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    make_private_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    (tmp_path / "old.log").touch(0o666)
    open_private_log(tmp_path / "old.log").close()
    assert stat.S_IMODE((tmp_path / "old.log").stat().st_mode) == 0o600
