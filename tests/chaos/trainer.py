"""A training that reports at a steady pace until SIGTERM, and writes each step to an account.

Arguments: endpoint, account, seconds for a step.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from types import FrameType

import trialbus
from trialbus.trainer.assignment import make_environment

#: One step in the account: when it ended, by the monotonic clock, and the seconds `report` took.
STEP = struct.Struct("=dd")


def main() -> None:
    endpoint, path, step_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    assigned = trialbus.TrialAssigned(
        study="outage", trial=0, request="outage", session="outage", params={}, seed=0
    )
    os.environ.update(make_environment(assigned, endpoint))
    account = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with trialbus.attach() as trial:
        step = 0
        due = time.monotonic()
        while not stopping.is_set():
            began = time.monotonic()
            trial.report(step, {"loss": 1 / (step + 1)})
            ended = time.monotonic()
            os.write(account, STEP.pack(ended, ended - began))
            step += 1
            due += step_s
            time.sleep(max(0.0, due - time.monotonic()))  # the training


if __name__ == "__main__":
    main()
