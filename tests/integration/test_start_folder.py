"""Artifacts, checkpoints, keys and sockets lie where the docs say, wherever a training has gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trialbus
from trialbus.testing import TestBus

TRAINING = """
import os, sys, trialbus
os.makedirs("elsewhere", exist_ok=True)
os.chdir("elsewhere")
with trialbus.attach(defaults={"x": 1.0}) as trial:
    trial.report(0, {"loss": 1.0})
    open("curve.txt", "w").write("0 1")
    trial.log_artifact("curve.txt")
    with trial.checkpoint.save(0) as path:
        path.write_text("weights")
"""


def run_training(folder: Path, **variables: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIALBUS_")}
    subprocess.run(
        [sys.executable, "-c", TRAINING],
        cwd=folder,
        env=environment | variables,
        check=True,
        timeout=60,
    )


def list_files(folder: Path) -> set[str]:
    """Return the folders of the files of checkpoints and artifacts."""
    return {
        str(path.parent.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "curve.txt"
    }


def test_without_a_worker_the_folders_count_from_where_the_program_began(tmp_path: Path) -> None:
    run_training(tmp_path)
    artifacts, checkpoints = sorted(list_files(tmp_path))
    assert artifacts == ".trialbus/artifacts"
    assert checkpoints.startswith(".trialbus/checkpoints/")
    run_training(tmp_path, TRIALBUS_ARTIFACTS="a", TRIALBUS_CHECKPOINTS="c")
    assert "a" in list_files(tmp_path)
    assert not (tmp_path / "elsewhere" / ".trialbus").exists()


def test_under_a_worker_the_folders_count_from_where_the_worker_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, training = tmp_path / "worker", tmp_path / "training"
    worker.mkdir()
    training.mkdir()
    with TestBus() as bus:
        monkeypatch.chdir(worker)
        variables: dict[str, str] = {}
        bus.assign(variables.__setitem__, params={"x": 1.0})
        run_training(training, **variables)
        run_training(training, **variables, TRIALBUS_ARTIFACTS="kept")
        assert len(bus.events(trialbus.ArtifactLogged)) == 2
    assert list_files(tmp_path) == {
        "worker/.trialbus/artifacts",
        "worker/kept",
        "worker/.trialbus/checkpoints/test/0",
    }


def test_the_socket_of_the_environment_is_found_after_a_change_of_folder(tmp_path: Path) -> None:
    with TestBus() as bus:
        (tmp_path / "hub.sock").symlink_to(bus.endpoint.removeprefix("ipc://"))
        variables: dict[str, str] = {}
        bus.assign(variables.__setitem__, params={"x": 1.0})
        variables |= {"TRIALBUS_ENDPOINT": "ipc://hub.sock", "TRIALBUS_FOLDER": str(tmp_path)}
        run_training(tmp_path, **variables)
        assert [event.state for event in bus.events(trialbus.TrialFinished)] == ["complete"]
