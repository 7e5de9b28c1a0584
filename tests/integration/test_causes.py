"""Why a training ended, as its worker tells; and what a training left before that verdict."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from support.processes import Bus
from support.until import until
from support.worker import STUDY, Optimizer, have_ended
from trialbus.messages import events

N_REPORTS = 20

# Trainings by name; each prints its process id, as `Optimizer.wait_for_family` expects.
TRAININGS = """
import os, signal, sys, threading, time
import trialbus

def begin():
    print(os.getpid(), flush=True)

def sleeps(trial):
    begin()
    time.sleep(600)

def dies(trial):
    begin()
    while not os.path.exists("go"):
        time.sleep(0.01)
    for step in range(N_REPORTS):
        trial.report(step, {"loss": 1.0})
    trial.complete(0.5)
    os.kill(os.getpid(), signal.SIGKILL)

asked = threading.Event()

def leaves_quietly(trial):
    begin()
    while not asked.wait(0.05):
        pass

def reports(trial):
    begin()
    for step in range(10**6):
        trial.report(step, {"loss": 1.0})
        time.sleep(0.05)

def grows(trial):
    begin()
    hoard = bytearray(400_000_000)
    time.sleep(600)

def lingers(trial):
    begin()
    trial.complete(0.5)
    threading.Thread(target=time.sleep, args=(600,)).start()
"""

SCRIPT = """
import signal, sys, trialbus, trainings
if sys.argv[1] == "leaves_quietly":
    signal.signal(signal.SIGTERM, lambda *_: trainings.asked.set())
with trialbus.attach() as trial:
    getattr(trainings, sys.argv[1])(trial)
"""


@pytest.fixture
def optimizer(bus: Bus) -> Iterator[Optimizer]:
    bus.hub()
    optimizer = Optimizer(bus)
    text = TRAININGS.replace("N_REPORTS", str(N_REPORTS))
    (optimizer.folder / "trainings.py").write_text(text)
    (optimizer.folder / "train.py").write_text(SCRIPT)
    yield optimizer
    optimizer.close()


def run(name: str) -> list[str]:
    return [sys.executable, "train.py", name]


@pytest.mark.parametrize("training", ["sleeps", "leaves_quietly"])
def test_a_signal_that_nobody_of_trialbus_sent_kills_the_attempt_whatever_the_exit_code(
    optimizer: Optimizer, training: str
) -> None:
    optimizer.start_worker(run(training))
    optimizer.assign(optimizer.receive(events.TrialRequested))
    (pid,) = optimizer.wait_for_family()
    optimizer.receive(events.TrialStarted)
    os.kill(pid, signal.SIGTERM)
    finished = optimizer.receive(events.TrialFinished)
    assert (finished.state, finished.cause) == ("failed", "killed")
    assert finished.exit_code == (143 if training == "sleeps" else 0)


def test_a_shell_around_a_training_does_not_hide_the_signal(optimizer: Optimizer) -> None:
    optimizer.start_worker(["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"])
    optimizer.assign(optimizer.receive(events.TrialRequested))
    finished = optimizer.receive(events.TrialFinished)
    assert (finished.state, finished.cause, finished.exit_code) == ("failed", "killed", 137)
    assert "exited with code 137, as after SIGKILL" in str(finished.error)


def test_a_worker_that_is_stopped_preempts_the_attempt_with_one_voice(optimizer: Optimizer) -> None:
    worker = optimizer.start_worker(run("leaves_quietly"))
    optimizer.assign(optimizer.receive(events.TrialRequested))
    optimizer.wait_for_family()
    worker.signal(signal.SIGTERM)
    finished = optimizer.receive(events.TrialFinished)
    assert (finished.state, finished.cause) == ("preempted", "preempted")
    assert "worker w stopped" in str(finished.error)


def test_what_a_killed_training_left_comes_before_the_verdict_of_its_worker(
    optimizer: Optimizer, bus: Bus
) -> None:
    worker = optimizer.start_worker(run("dies"))
    request = optimizer.receive(events.TrialRequested)
    optimizer.assign(request)
    (pid,) = optimizer.wait_for_family()
    bus.processes["hub"].signal(signal.SIGSTOP)
    (optimizer.folder / "go").touch()
    until(lambda: have_ended([pid]), 20, "the end of the training")
    until(lambda: "slot 0 waits for the hub" in worker.printed(), 20, "what the slot waits for")
    bus.processes["hub"].signal(signal.SIGCONT)
    seen: list[events.AnyEvent] = []
    while not (isinstance(event := optimizer.next(), events.TrialRequested)):
        seen.append(event)
    steps = [event.step for event in seen if isinstance(event, events.EvaluationComplete)]
    assert steps == list(range(N_REPORTS))
    first, second = [event for event in seen if isinstance(event, events.TrialFinished)]
    assert (first.state, first.values) == ("complete", [0.5])
    assert (second.state, second.cause, second.exit_code) == ("failed", "killed", -9)
    assert seen.index(first) == len(seen) - 2


#: Training, settings of the worker, limits of the trial, and the key that the error names.
LIMITS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "timed_out": ("sleeps", {}, {"timeout_s": 2}, "study.trial_timeout_s=2"),
    "silent": ("sleeps", {}, {"silence_s": 2}, "study.silence_s=2"),
    "out_of_memory": ("grows", {"memory_gb": 0.3}, {}, "worker.memory_gb=0.3"),
}


@pytest.mark.parametrize("cause", LIMITS)
@pytest.mark.parametrize("kind", ["command", "function"])
def test_a_training_beyond_a_limit_is_ended_with_the_cause(
    optimizer: Optimizer, kind: str, cause: str
) -> None:
    training, options, limits, reason = LIMITS[cause]
    if kind == "command":
        optimizer.start_worker(run(training), **options)
    else:
        optimizer.start_worker(function=f"trainings:{training}", **options)
    optimizer.assign(optimizer.receive(events.TrialRequested), **limits)
    finished = optimizer.receive(events.TrialFinished)
    assert (finished.state, finished.cause) == ("failed", cause)
    assert reason in str(finished.error)
    # On a loaded machine a training may not come as far as printing its id.
    assert have_ended([int(pid) for pid in optimizer.log().read_text().split() if pid.isdigit()])
    optimizer.receive(events.TrialRequested)


def test_a_training_that_reports_is_not_silent_until_it_stops_reporting(
    optimizer: Optimizer,
) -> None:
    optimizer.start_worker(run("reports"))
    optimizer.assign(optimizer.receive(events.TrialRequested), silence_s=1.0)
    (pid,) = optimizer.wait_for_family()
    until(lambda: optimizer.receive(events.EvaluationComplete).step >= 40, 20, "40 reports")
    psutil.Process(pid).suspend()
    finished = optimizer.receive(events.TrialFinished)
    assert finished.cause == "silent"


def test_reports_of_a_program_without_an_outbox_count_against_silence(optimizer: Optimizer) -> None:
    optimizer.start_worker(["sleep", "600"])
    optimizer.assign(optimizer.receive(events.TrialRequested), silence_s=1.0)
    for step in range(20):
        optimizer.publish(events.EvaluationComplete(study=STUDY, trial=0, step=step, metrics={}))
        time.sleep(0.15)
    reported_at = time.time()
    finished = optimizer.receive(events.TrialFinished)
    assert finished.cause == "silent"
    assert finished.at > reported_at


def test_a_process_that_does_not_exit_after_its_trial_is_named_and_ended(
    optimizer: Optimizer,
) -> None:
    worker = optimizer.start_worker(run("lingers"), exit_grace_s=6)
    optimizer.assign(optimizer.receive(events.TrialRequested))
    (pid,) = optimizer.wait_for_family()
    assert optimizer.receive(events.TrialFinished).state == "complete"
    until(lambda: f"slot 0 waits for process {pid} (" in worker.printed(), 20, "what it waits for")
    assert "train.py lingers" in worker.printed()
    until(lambda: f"slot 0 waits for process {pid} (" in optimizer.read_waits(), 20, "the status")
    assert isinstance(optimizer.next(), events.TrialRequested)  # and no further trial_finished
    assert have_ended([pid])
    until(lambda: not optimizer.read_waits(), 20, "the end of the waiting")
    assert "has not exited for worker.exit_grace_s=6: ending it" in worker.printed()
