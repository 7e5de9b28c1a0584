"""`python` in a trainer's command is the Python of trialbus, or of the activated environment."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

import trialbus
from trialbus_services.process.search_path import build_search_path
from trialbus_services.worker.trainers import CommandTrainer


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_activated_environment_keeps_its_search_path(variable: str) -> None:
    assert build_search_path({"PATH": "/mine/bin:/usr/bin", variable: "/mine"}) == (
        "/mine/bin:/usr/bin"
    )


def test_python_is_the_one_that_runs_trialbus_where_no_environment_is_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program = Path(sys.executable).name
    trainer = CommandTrainer(
        command=[program, "-c", "import sys; print(sys.executable)"], runs=tmp_path
    )
    trial = trialbus.TrialAssigned(study="s", trial=0, request="r", session="w", params={})
    log = tmp_path / "log"
    ended = asyncio.run(trainer.run(trial, {}, log))
    assert (ended.code, log.read_text().strip()) == (0, sys.executable)
