"""Ctrl-C while a command still imports its modules ends the command quietly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
