"""The worker as a process on a real hub, with the test in the part of the optimizer."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil
import pytest

from support.processes import Bus, Managed
from support.until import until
from trialbus import Link, Publisher, subscribe
from trialbus.client.admin import hub_status
from trialbus.messages import events
from trialbus.trainer.assignment import TRIAL_VARIABLE, parse_assignment
from trialbus_services.config import settings

STUDY = "digits"
TTL_S = 1.5

# Prints the process ids of a training and its child, both of which outlast the test.
FAMILY = (
    sys.executable,
    "-c",
    (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "time.sleep(600)\n"
    ),
)

WORKER = (
    "import sys, logging, msgspec\n"
    "from trialbus_services.config import settings\n"
    "from trialbus_services.worker.main import run\n"
    "logging.basicConfig(level=logging.INFO)\n"
    "types = (settings.BusSettings, settings.WorkerSettings, settings.TrainerSettings)\n"
    "sections = [msgspec.json.decode(a, type=t) for a, t in zip(sys.argv[1:4], types)]\n"
    "sys.exit(run(*sections, study=sys.argv[4]))\n"
)

_E = TypeVar("_E", bound=events.Event)


class Optimizer:
    """An optimizer with decisions made by the test."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._link = Link(bus.endpoint)
        self._link.wait_connected(20)
        self._inbox = subscribe(link=self._link)
        self._publisher = Publisher(link=self._link)
        self._inbox.wait_ready()

    def close(self) -> None:
        self._inbox.close()
        self._publisher.close()
        self._link.close()

    def start_worker(
        self, command: Sequence[str], *, slots: int = 1, study: str = STUDY
    ) -> Managed:
        sections = (
            settings.BusSettings(endpoint=self._bus.endpoint, dir=str(self._bus.directory / "log")),
            settings.WorkerSettings(name="w", slots=slots, ttl_s=TTL_S, grace_s=3),
            settings.TrainerSettings(command=list(command), cwd=str(self.folder)),
        )
        arguments = [msgspec.json.encode(section).decode() for section in sections]
        return self._bus.run("worker", [sys.executable, "-c", WORKER, *arguments, study])

    @property
    def folder(self) -> Path:
        """Working folder of the trainings."""
        path = self._bus.directory / "trainings"
        path.mkdir(exist_ok=True)
        return path

    def log(self, trial: int = 0, attempt: int = 0, study: str = STUDY) -> Path:
        logs = self._bus.directory / "log" / "logs" / "trials"
        return logs / study / f"{trial}-{attempt}.log"

    def wait_for_family(self, trial: int = 0, attempt: int = 0) -> list[int]:
        """Wait until a training has printed the ids of its processes, and return the ids."""
        log = self.log(trial, attempt)

        def printed() -> list[int]:
            line, end, _ = (log.read_text() if log.exists() else "").partition("\n")
            return [int(pid) for pid in line.split()] if end else []

        return until(printed, 20, "the training's first line")

    def receive(self, type_: type[_E], timeout_s: float = 20.0) -> _E:
        """Return the next event of a type, and skip events of other types."""
        deadline = time.monotonic() + timeout_s
        while not isinstance(event := self.next(deadline - time.monotonic()), type_):
            pass
        return event

    def next(self, timeout_s: float = 20.0) -> events.AnyEvent:
        """Return the next event of any type."""
        event = self._inbox.next(timeout_s)
        assert event is not None, "no further event"
        return event

    def publish(self, event: events.Event) -> None:
        self._publisher.publish(event)

    def assign(
        self,
        request: events.TrialRequested,
        trial: int = 0,
        *,
        attempt: int = 0,
        study: str = STUDY,
    ) -> events.TrialAssigned:
        assigned = events.TrialAssigned(
            study=study,
            trial=trial,
            attempt=attempt,
            request=request.request,
            session=request.session,
            params={"lr": 0.1},
            seed=7,
            budget=5,
        )
        self.publish(assigned)
        return assigned

    def list_sessions(self) -> list[str]:
        return [row.session for row in hub_status(self._link).sessions]


@pytest.fixture
def optimizer(bus: Bus) -> Iterator[Optimizer]:
    bus.hub()
    optimizer = Optimizer(bus)
    yield optimizer
    optimizer.close()


def have_ended(pids: Sequence[int]) -> bool:
    def is_alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(is_alive, pids))


def test_each_slot_asks_for_itself_runs_its_trial_and_asks_again(optimizer: Optimizer) -> None:
    optimizer.start_worker(["sh", "-c", f"echo ${TRIAL_VARIABLE}"], slots=2)
    requests = [optimizer.receive(events.TrialRequested) for _ in range(2)]
    assert sorted(request.slot for request in requests) == [0, 1]
    assert {(request.study, request.worker) for request in requests} == {(STUDY, "w")}
    assert requests[0].resources == requests[1].resources
    assert requests[0].resources["gpus"] == 0
    assert requests[0].resources["cpus"] > 0
    assert optimizer.list_sessions() == [requests[0].session] == [requests[1].session]
    optimizer.assign(requests[0], 12)
    finished = optimizer.receive(events.TrialFinished)
    assert (finished.trial, finished.attempt, finished.state, finished.exit_code) == (
        12,
        0,
        "complete",
        0,
    )
    assigned = parse_assignment(optimizer.log(12).read_text())
    assert (assigned.study, assigned.trial, assigned.params) == (STUDY, 12, {"lr": 0.1})
    assert (assigned.seed, assigned.budget) == (7, 5)
    assert assigned.request == requests[0].request
    again = optimizer.receive(events.TrialRequested)
    assert again.slot == requests[0].slot
    assert again.request not in {request.request for request in requests}


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (("sh", "-c", "echo no data; exit 3"), 3, "no data\nthe trainer exited with code 3"),
        (("sh", "-c", "kill -KILL $$"), -9, "the trainer was killed by SIGKILL"),
        (("no-such-program",), 127, "trainer.command: there is no 'no-such-program'"),
    ],
)
def test_a_training_that_goes_wrong_fails_its_trial_and_says_why(
    optimizer: Optimizer, command: tuple[str, ...], code: int, error: str
) -> None:
    optimizer.start_worker(command)
    optimizer.assign(optimizer.receive(events.TrialRequested))
    finished = optimizer.receive(events.TrialFinished)
    assert (finished.state, finished.exit_code) == ("failed", code)
    assert error in str(finished.error)
    optimizer.receive(events.TrialRequested)


def test_a_folder_that_is_gone_fails_the_trial_and_not_the_worker(optimizer: Optimizer) -> None:
    optimizer.start_worker(["true"])
    request = optimizer.receive(events.TrialRequested)
    folder = optimizer.folder
    folder.rmdir()
    optimizer.assign(request)
    finished = optimizer.receive(events.TrialFinished)
    assert finished.state == "failed"
    assert f"trainer.cwd='{folder}'" in str(finished.error)
    folder.mkdir()
    optimizer.assign(optimizer.receive(events.TrialRequested), 1)
    assert optimizer.receive(events.TrialFinished).state == "complete"


def test_an_assignment_that_is_said_twice_is_run_once(optimizer: Optimizer) -> None:
    optimizer.start_worker(["sh", "-c", "echo here >> runs"])
    first = optimizer.receive(events.TrialRequested)
    optimizer.publish(optimizer.assign(first))
    second = optimizer.receive(events.TrialRequested)
    optimizer.assign(first)  # and once more when it is long over
    optimizer.assign(second, 1)
    assert optimizer.receive(events.TrialFinished).trial == 1
    assert (optimizer.folder / "runs").read_text() == "here\nhere\n"


def test_a_request_outlives_the_end_of_its_study_and_is_not_repeated(optimizer: Optimizer) -> None:
    optimizer.start_worker(["true"])
    request = optimizer.receive(events.TrialRequested)
    optimizer.publish(events.StudyFinished(study=STUDY, submission="a", reason="exhausted"))
    optimizer.receive(events.StudyFinished)
    optimizer.assign(request)
    # The worker reads the end of the study before the assignment.
    event = optimizer.next()
    while not isinstance(event, events.TrialFinished):
        assert not isinstance(event, events.TrialRequested)
        event = optimizer.next()
    assert event.state == "complete"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_ends_its_training_and_hands_the_trial_back(
    optimizer: Optimizer, number: int
) -> None:
    worker = optimizer.start_worker(FAMILY)
    optimizer.assign(optimizer.receive(events.TrialRequested))
    family = optimizer.wait_for_family()
    worker.signal(number)
    assert worker.wait(20) == 0
    finished = optimizer.receive(events.TrialFinished)
    assert (finished.trial, finished.state) == (0, "preempted")
    until(lambda: have_ended(family), 10, "the end of the training")
    assert optimizer.list_sessions() == []


def test_a_job_whose_processes_are_all_told_to_end_hands_its_trial_back(
    optimizer: Optimizer,
) -> None:
    worker = optimizer.start_worker(FAMILY)
    optimizer.assign(optimizer.receive(events.TrialRequested))
    training, _ = optimizer.wait_for_family()
    guard = psutil.Process(training).ppid()
    psutil.Process(training).terminate()
    until(lambda: have_ended([training, guard]), 10, "the end of the training")
    worker.signal(signal.SIGTERM)  # it is the last to hear of it
    assert worker.wait(20) == 0
    assert optimizer.receive(events.TrialFinished).state == "preempted"


def test_a_worker_that_is_stopped_takes_back_its_open_requests(optimizer: Optimizer) -> None:
    worker = optimizer.start_worker(["true"])
    request = optimizer.receive(events.TrialRequested)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert optimizer.receive(events.RequestWithdrawn).request == request.request


def test_when_the_worker_is_killed_its_training_ends_and_its_session_is_lost(
    optimizer: Optimizer,
) -> None:
    worker = optimizer.start_worker(FAMILY)
    request = optimizer.receive(events.TrialRequested)
    optimizer.assign(request)
    family = optimizer.wait_for_family()
    worker.kill()
    until(lambda: have_ended(family), 10, "the end of the training")
    assert optimizer.receive(events.TrainerLost, 4 * TTL_S).session == request.session


def test_a_worker_that_was_given_up_ends_its_training_and_asks_as_a_new_one(
    optimizer: Optimizer,
) -> None:
    worker = optimizer.start_worker(FAMILY)
    request = optimizer.receive(events.TrialRequested)
    optimizer.assign(request)
    family = optimizer.wait_for_family()
    worker.signal(signal.SIGSTOP)
    assert optimizer.receive(events.TrainerLost, 4 * TTL_S).session == request.session
    worker.signal(signal.SIGCONT)
    again = optimizer.receive(events.TrialRequested)
    assert again.session != request.session
    until(lambda: have_ended(family), 10, "the end of the training")
    optimizer.assign(again, attempt=1)
    assert optimizer.wait_for_family(attempt=1)


def test_a_later_attempt_ends_the_earlier_one(optimizer: Optimizer) -> None:
    optimizer.start_worker(FAMILY, slots=2)
    first, second = (optimizer.receive(events.TrialRequested) for _ in range(2))
    optimizer.assign(first)
    family = optimizer.wait_for_family()
    optimizer.assign(second, attempt=1)
    later = optimizer.wait_for_family(attempt=1)
    until(lambda: have_ended(family), 10, "the end of the earlier attempt")
    assert optimizer.receive(events.TrialRequested).slot == first.slot
    assert not have_ended(later)


def test_a_training_that_was_given_up_as_lost_does_not_keep_its_slot(optimizer: Optimizer) -> None:
    optimizer.start_worker(FAMILY)
    optimizer.assign(optimizer.receive(events.TrialRequested), attempt=1)
    family = optimizer.wait_for_family(attempt=1)
    for attempt in (0, 1):  # the loss of the attempt before changes nothing
        assert not have_ended(family)
        optimizer.publish(
            events.TrainerLost(study=STUDY, trial=0, attempt=attempt, session="t", kind="trainer")
        )
    until(lambda: have_ended(family), 10, "the end of the training")
    optimizer.assign(optimizer.receive(events.TrialRequested), attempt=2)
    assert optimizer.wait_for_family(attempt=2)


def test_when_the_hub_comes_back_with_another_log_the_worker_ends_and_says_so(
    optimizer: Optimizer, bus: Bus
) -> None:
    worker = optimizer.start_worker(FAMILY)
    optimizer.assign(optimizer.receive(events.TrialRequested))
    family = optimizer.wait_for_family()
    bus.processes["hub"].kill()
    (bus.directory / "log").rename(bus.directory / "old")
    bus.processes["hub"].start()
    assert worker.wait(30) != 0
    assert "LogResetError" in worker.printed()
    until(lambda: have_ended(family), 10, "the end of the training")


def test_a_worker_of_any_study_takes_trials_of_all(optimizer: Optimizer) -> None:
    optimizer.start_worker(["true"], study="")
    for study in ("digits", "moons"):
        request = optimizer.receive(events.TrialRequested)
        assert request.study == ""
        optimizer.assign(request, study=study)
        assert optimizer.receive(events.TrialFinished).study == study
