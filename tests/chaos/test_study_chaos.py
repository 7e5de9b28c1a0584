"""Accounts, log and database agree, whichever processes of a study are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(180)
def test_accounts_log_and_database_agree_whatever_is_killed() -> None:
    # In a process of its own, which becomes the parent of all orphans.
    command = [sys.executable, "-m", "chaos", "--studies", "2", "--kills", "12", "--seed", "1"]
    tests = Path(__file__).parents[1]
    chaos = subprocess.run(
        [*command, "--json"], cwd=tests, capture_output=True, text=True, check=False
    )
    print(chaos.stdout, chaos.stderr)
    outcome = json.loads(chaos.stdout.splitlines()[-1])
    assert outcome.pop("kills") == 12
    assert outcome.pop("reports") > 50
    assert not any(outcome.values()), outcome
