"""The worker as a process on a real hub, with the test in the part of the optimizer."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import psutil
import pytest

from support.processes import Bus
from support.until import until
from support.worker import FAMILY, STUDY, TTL_S, Optimizer, have_ended
from trialbus.messages import events
from trialbus.trainer.assignment import TRIAL_VARIABLE, parse_assignment


@pytest.fixture
def optimizer(bus: Bus) -> Iterator[Optimizer]:
    bus.hub()
    optimizer = Optimizer(bus)
    yield optimizer
    optimizer.close()


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
        (("sh", "-c", "echo no data; exit 3"), 3, "no data (the trainer exited with code 3)"),
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
