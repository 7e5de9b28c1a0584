"""A training for tests, without a framework: a curve of one param, and a pause at each step.

Arguments: steps, seconds for each, and how to end (`end`, `exit1`, `silent`).
"""

from __future__ import annotations

import sys
import time

import trialbus


def main() -> None:
    steps, step_s, ending = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    if ending == "exit1":
        sys.exit("the training data is missing")
    with trialbus.attach() as trial:
        for step in range(steps):
            time.sleep(step_s)  # the training
            name = "other" if ending == "silent" else "loss"
            trial.report(step, {name: trial.params["x"] ** 2 + 1 / (step + 1)})


if __name__ == "__main__":
    main()
