"""Ctrl-C while a command still imports its modules ends the command quietly."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from trialbus_services.config.composing import compose_config
from trialbus_services.launcher.launcher import launch_study, make_plan
from trialbus_services.launcher.supervisor import Services

SCRIPT = str(Path(sys.executable).with_name("trialbus"))


@pytest.mark.parametrize("module", ["msgspec", "hydra"])
@pytest.mark.parametrize(
    "command", [[SCRIPT], [sys.executable, "-m", "trialbus_services"]], ids=["script", "module"]
)
def test_an_interrupted_import_ends_with_130_and_no_output(
    command: list[str], module: str, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [*command, "study", "--dry-run"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_study_that_is_interrupted_while_its_services_start_says_what_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Services, "start", interrupt)
    console = Console(file=io.StringIO())
    with (
        compose_config(["study=digits", "launcher=none"]) as composed,
        pytest.raises(KeyboardInterrupt),
    ):
        launch_study(make_plan(composed), console, signals=())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "digits: starting",
        "interrupted before the study started; the same command starts the study",
    ]
