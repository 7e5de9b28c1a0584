"""A publisher with a ledger of accepted events: endpoint, name, ledger, pause, adoption."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

import trialbus
from trialbus.client import sender


def main() -> None:
    endpoint, name, ledger_path, pause_s, adoption = sys.argv[1:6]
    if adoption == "off":
        sender.Adopter._is_adopter = lambda self: False  # type: ignore[method-assign]
    stopping: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    ledger = os.open(ledger_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with trialbus.Publisher(endpoint) as publisher:
        step = 0
        while not stopping:
            publisher.publish(
                trialbus.EvaluationComplete(study=name, trial=0, step=step, metrics={"m": 0.5})
            )
            # A publisher killed before this line may have published an event that is not counted.
            os.write(ledger, b".")
            step += 1
            time.sleep(float(pause_s))  # the load


if __name__ == "__main__":
    main()
