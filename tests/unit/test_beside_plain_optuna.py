"""Plain Optuna works on the same study meanwhile: nothing of its trials is taken or overwritten."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from support.simulated_bus import SimulatedBus
from trialbus.messages import events
from trialbus_services.optimizer.attributes import ERROR, REQUEST
from trialbus_services.optimizer.storage import open_storage
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind


@pytest.fixture(params=["sqlite", "journal"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:///{tmp_path}/studies.{request.param}"


@pytest.fixture
def storage(url: str) -> BaseStorage:
    return open_storage(url)


@pytest.fixture
def bus(storage: BaseStorage) -> Iterator[SimulatedBus]:
    simulated = SimulatedBus(storage)
    yield simulated
    simulated.loop.close(20)


class Other:
    """Another process that uses plain Optuna on the same storage."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, code: str) -> None:
        """Run lines with `study`, `optuna` and `space`."""
        lines = [
            "import optuna",
            "from trialbus_services.optimizer.storage import open_storage",
            f"storage = open_storage({self._url!r})",
            "study = optuna.load_study(study_name='s', storage=storage)",
            "space = {'x': optuna.distributions.FloatDistribution(0, 1)}",
            code,
        ]
        subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=60)


@pytest.fixture
def other(url: str) -> Other:
    return Other(url)


def evaluate(
    assigned: events.TrialAssigned, step: int, loss: float = 1.0
) -> events.EvaluationComplete:
    return events.EvaluationComplete(
        study="s",
        trial=assigned.trial,
        attempt=assigned.attempt,
        step=step,
        metrics={"loss": loss},
    )


def complete(assigned: events.TrialAssigned) -> events.TrialFinished:
    return events.TrialFinished(
        study="s", trial=assigned.trial, attempt=assigned.attempt, state="complete"
    )


def request_trial(bus: SimulatedBus, request: str) -> events.TrialAssigned:
    """Request a trial and return the assignment, which may follow a turn later."""
    bus.turn(events.TrialRequested(study="s", request=request, session="w"))
    bus.turn()
    [assigned] = [a for a in bus.log.select(events.TrialAssigned) if a.request == request]
    return assigned


def read(storage: BaseStorage) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=storage).get_trials()


def test_numbers_stay_unique_when_trials_follow_one_whose_number_was_taken(
    storage: BaseStorage,
) -> None:
    """Also those that are created before the study is loaded again."""
    recorder = WriteBehind(storage, interval_s=None)
    study_id = recorder.load_or_create_study("s", [StudyDirection.MINIMIZE])
    study = optuna.load_study(study_name="s", storage=storage)
    study.enqueue_trial({"x": 0.5})
    for _ in range(2):
        recorder.create_new_trial(study_id)
        assert recorder.write_pending()
    assert recorder.has_conflicts(study_id)
    assert [trial.number for trial in read(storage)] == [0, 1, 2]


def test_a_trial_that_another_program_ended_is_not_tried_again(
    bus: SimulatedBus, other: Other, storage: BaseStorage
) -> None:
    bus.submit(n_trials=2)
    first, second = request_trial(bus, "r0"), request_trial(bus, "r1")
    other.run("study.tell(0, 0.25)")
    bus.turn(evaluate(first, 0))
    bus.turn(
        events.TrialFinished(study="s", trial=0, attempt=0, state="preempted", cause="preempted")
    )
    bus.turn(events.TrialRequested(study="s", request="r2", session="w"))
    bus.turn(evaluate(second, 0), complete(second))
    bus.turn()
    verdicts = {verdict.trial: verdict.values for verdict in bus.log.select(events.TrialClosed)}
    assert verdicts == {0: [0.25], 1: [1.0]}
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.complete) == ("exhausted", 2)
    assert [trial.values for trial in read(storage)] == [[0.25], [1.0]]


@pytest.mark.parametrize("next_attempt", [False, True], ids=["waits", "begins"])
def test_the_end_of_a_study_counts_what_another_program_did_to_its_last_trials(
    next_attempt: bool, bus: SimulatedBus, other: Other
) -> None:
    bus.submit(n_trials=2)
    for request in ("r0", "r1"):
        request_trial(bus, request)
    bus.turn(events.TrainerLost(study="s", session="w", kind="worker"))
    other.run("study.tell(0, 0.25)\nstudy.tell(1, state=optuna.trial.TrialState.FAIL)")
    if next_attempt:
        bus.turn(events.TrialRequested(study="s", request="r2", session="v"))
    bus.turn(events.Stop(study="s"))
    bus.turn()
    assert [assigned.attempt for assigned in bus.log.select(events.TrialAssigned)] == [0, 0]
    [end] = bus.log.select(events.StudyFinished)
    assert (end.counts.complete, end.counts.failed) == (1, 1)
    assert [best.values for best in end.best_trials] == [[0.25]]
    verdicts = {verdict.trial: verdict.state for verdict in bus.log.select(events.TrialClosed)}
    assert verdicts == {0: "complete", 1: "failed"}


def test_a_trial_that_was_created_in_vain_has_ended_when_its_study_has(
    bus: SimulatedBus, other: Other, storage: BaseStorage
) -> None:
    """Others complete as many trials as the study was to have while a trial is created."""
    bus.submit(n_trials=1)
    other.run("study.tell(study.ask(space), 0.25)")
    bus.turn(events.TrialRequested(study="s", request="r0", session="w"))
    bus.turn()
    assert bus.log.select(events.StudyFinished)[0].reason == "exhausted"
    trials = read(storage)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert trials[1].user_attrs[ERROR] == "the study ended (exhausted) while the trial waited"


def test_a_number_that_another_program_took_is_not_handed_out(
    bus: SimulatedBus, other: Other, storage: BaseStorage
) -> None:
    bus.submit(n_trials=6)
    first = request_trial(bus, "r0")
    other.run("study.tell(study.ask(space), 0.25)\nstudy.ask(space)")
    second = request_trial(bus, "r1")
    assert (first.trial, second.trial) == (0, 3)
    for assigned in (first, second):
        bus.turn(evaluate(assigned, 0, 2.0), complete(assigned))
    third = request_trial(bus, "r2")
    assert third.trial == 4
    trials = bus.trials()
    assert [trial.values for trial in trials[:4]] == [[2.0], [0.25], None, [2.0]]
    assert [REQUEST in trial.user_attrs for trial in trials[:4]] == [True, False, False, True]
    assert trials[2].state is TrialState.RUNNING
    assert read(storage)[1].value == 0.25


def test_an_end_that_another_program_told_is_kept_and_the_training_is_told_to_stop(
    bus: SimulatedBus, other: Other
) -> None:
    bus.submit(n_trials=3)
    told, kept = request_trial(bus, "r0"), request_trial(bus, "r1")
    bus.turn(evaluate(told, 0, 3.0))
    assert bus.storage.flush(20)
    other.run("study.tell(0, 0.125)")
    bus.turn(evaluate(told, 1, 4.0))
    bus.storage.flush(20)
    bus.turn()
    [prune] = bus.log.select(events.Prune)
    assert (prune.trial, prune.reason) == (0, "another program has ended the trial")
    bus.turn(complete(told), evaluate(kept, 0, 2.0), complete(kept))
    trials = bus.trials()
    bus.turn()
    assert (trials[0].state, trials[0].values) == (TrialState.COMPLETE, [0.125])
    assert trials[0].intermediate_values == {0: 3.0}
    assert trials[1].values == [2.0]
    verdicts = {verdict.trial: verdict.values for verdict in bus.log.select(events.TrialClosed)}
    assert verdicts == {0: [0.125], 1: [2.0]}


def test_an_end_that_comes_after_that_of_another_program_is_not_recorded_or_published(
    bus: SimulatedBus, other: Other
) -> None:
    bus.submit(n_trials=3)
    told = request_trial(bus, "r0")
    other.run("study.tell(0, state=optuna.trial.TrialState.FAIL)")
    bus.turn(evaluate(told, 0, 3.0), complete(told))
    bus.storage.flush(20)
    bus.turn()
    bus.turn()
    [trial] = bus.trials()
    assert (trial.state, trial.intermediate_values) == (TrialState.FAIL, {})
    assert [verdict.state for verdict in bus.log.select(events.TrialClosed)] == ["failed"]


def test_trials_that_another_program_enqueues_run_here_and_those_that_it_runs_do_not(
    bus: SimulatedBus, other: Other, storage: BaseStorage
) -> None:
    study = optuna.create_study(study_name="s", storage=storage)
    study.ask({"x": FloatDistribution(0, 1)})
    for submission in ("1", "2"):  # the second hand-over took what the first had left
        bus.submit(n_trials=10)
        assert request_trial(bus, submission).trial not in (0, 2)
        other.run("study.ask(space)\nstudy.enqueue_trial({'x': 0.75})")
    request_trial(bus, "r3")
    states = [(REQUEST in trial.user_attrs, trial.state) for trial in bus.trials()]
    assert states[0] == states[2] == (False, TrialState.RUNNING)


def test_a_study_that_another_program_deletes_ends_at_once(bus: SimulatedBus, other: Other) -> None:
    bus.submit(n_trials=3)
    assigned = request_trial(bus, "r0")
    other.run("optuna.delete_study(study_name='s', storage=storage)")
    bus.turn(evaluate(assigned, 0))
    bus.storage.flush(20)
    bus.turn()
    [end] = bus.log.select(events.StudyFinished)
    assert end.reason == "failed"
    assert "another program has deleted the study 's'" in str(end.error)
