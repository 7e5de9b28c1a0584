"""Signals do not interrupt a block halfway, and arrive after the block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from trialbus_services.process.signals import hold_signals

# Holds signals around the start of a process, which must be known whatever arrives meanwhile.
SCRIPT = """
import os, signal, subprocess, sys, threading, time
from trialbus_services.process.signals import hold_signals

children = []
try:
    with hold_signals():
        os.kill(os.getpid(), signal.SIGINT)
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
    print("not interrupted")
except KeyboardInterrupt:
    (child,) = children
    child.terminate()
    print("ended by", -child.wait())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_arrives_after_the_block(number: signal.Signals) -> None:
    seen: list[str] = []

    def handle(_number: int, _frame: FrameType | None) -> None:
        seen.append("signal")

    before = signal.signal(number, handle)
    try:
        with hold_signals(), hold_signals():
            os.kill(os.getpid(), number)
            seen.append("block")
        assert seen == ["block", "signal"]
    finally:
        signal.signal(number, before)


def test_a_process_that_is_started_in_the_block_is_known_and_can_be_ended(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"ended by {int(signal.SIGTERM)}\n"
