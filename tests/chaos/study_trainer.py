"""A training that writes each report and its end to an account on disk, before and after.

The folder of the accounts is `$CHAOS_ACCOUNTS`; each attempt of a trial has a file there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import trialbus

#: Environment variable with the folder of the accounts.
ACCOUNTS_VARIABLE = "CHAOS_ACCOUNTS"
#: Of seven trials one fails, and one has a child process that never ends by itself.
_EVERY = 7
_FAILING, _WITH_CHILD = 3, 5


class Account:
    """The account of an attempt: one JSON object a line, on the disk before a call returns."""

    def __init__(self, trial: trialbus.Trial) -> None:
        folder = Path(os.environ[ACCOUNTS_VARIABLE]) / trial.study
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{trial.number}-{trial.attempt}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, **entry: object) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)


def compute_value(x: float, step: int, attempt: int) -> float:
    """Return what an attempt reports at a step; two attempts never report the same."""
    return (x - 0.3) ** 2 + 1 / (step + 1) + attempt * 1e-6


def train(trial: trialbus.Trial) -> None:
    account = Account(trial)
    account.write(began=os.getpid(), params=dict(trial.params))
    resumes = trial.params["mode"] == "resume"
    checkpoint = trial.checkpoint.latest() if resumes else None
    is_failing = trial.number % _EVERY == _FAILING
    if trial.number % _EVERY == _WITH_CHILD:
        sleep = "import time; time.sleep(3600)"
        subprocess.Popen([sys.executable, "-I", "-S", "-c", sleep])
    for step in range(checkpoint.step + 1 if checkpoint else 0, trial.budget):
        time.sleep(trial.params["step_s"])  # the training
        if is_failing and step == trial.budget // 2:
            account.write(ending="failed")
            raise RuntimeError("bad luck")
        value = compute_value(trial.params["x"], step, trial.attempt)
        account.write(reporting=step, value=value)
        try:
            trial.report(step, {"loss": value})
        except trialbus.TrialPruned:
            account.write(reported=step, value=value)
            account.write(ending="pruned")
            raise
        account.write(reported=step, value=value)
        if resumes:
            with trial.checkpoint.save(step) as path:
                path.write_text(str(step))
    account.write(ending="complete")
    trial.complete()
    account.write(ended="complete")


def main() -> None:
    with trialbus.attach() as trial:
        train(trial)


if __name__ == "__main__":
    main()
