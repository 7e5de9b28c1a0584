"""The optimizer's loop applies every event once, and ends a failed study alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from support.simulated_bus import SPEC, Sampler, SimulatedBus
from support.until import until
from trialbus import CategoricalParam, Component, Objective
from trialbus.messages import events
from trialbus_services.optimizer.announcer import Announcer
from trialbus_services.optimizer.attributes import CAUSE, CAUSES, ELAPSED, RAN
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.prune_decider import PruneDecider
from trialbus_services.optimizer.storage_writer.api_writer import ApiWriter
from trialbus_services.optimizer.study_recorder import StudyRecorder


@pytest.fixture
def bus() -> Iterator[SimulatedBus]:
    simulated = SimulatedBus()
    yield simulated
    simulated.storage.is_held = False
    simulated.loop.close(20)


def evaluate(
    assigned: events.TrialAssigned, step: int, loss: float, attempt: int | None = None
) -> events.EvaluationComplete:
    return events.EvaluationComplete(
        study=assigned.study,
        trial=assigned.trial,
        attempt=assigned.attempt if attempt is None else attempt,
        step=step,
        metrics={"loss": loss},
    )


def complete(assigned: events.TrialAssigned) -> events.TrialFinished:
    return events.TrialFinished(
        study=assigned.study, trial=assigned.trial, attempt=assigned.attempt, state="complete"
    )


def test_a_request_gets_one_trial_however_often_it_is_read(bus: SimulatedBus) -> None:
    bus.submit()
    request = events.TrialRequested(study="s", request="r", session="w")
    bus.turn(request, request)
    bus.turn(request)
    bus.log.committed = 0
    bus.start()
    bus.turn(request)
    [assigned] = bus.log.select(events.TrialAssigned)
    assert assigned.params == {"x": 0.5}
    assert [trial.state for trial in bus.trials()] == [TrialState.RUNNING]
    bus.request("other")
    assert [event.trial for event in bus.log.select(events.TrialAssigned)] == [0, 1]


def test_a_trial_that_was_created_before_a_crash_and_not_handed_out_answers_the_request(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    bus.storage.is_held = True
    bus.turn(events.TrialRequested(study="s", request="r", session="w"))
    assert bus.log.select(events.TrialAssigned) == []
    bus.storage.flush(20)
    bus.start()  # killed with the trial in the database and the assignment unpublished
    bus.turn()
    assert [event.trial for event in bus.log.select(events.TrialAssigned)] == [0]
    assert len(bus.trials()) == 1


def test_a_request_that_ends_with_its_study_is_refused_once_the_study_has_ended(
    bus: SimulatedBus,
) -> None:
    bus.submit(n_trials=1)
    first = bus.request("r1")
    bus.turn(
        events.TrialRequested(study="s", request="r2", session="v", ends_with_study=True),
        events.TrialRequested(study="s", request="patient", session="v"),
        events.TrialRequested(study="unknown", request="r3", session="v", ends_with_study=True),
    )
    assert bus.log.select(events.RequestRefused) == []
    bus.turn(evaluate(first, 0, 1.0), complete(first))
    [refused] = bus.log.select(events.RequestRefused)
    assert (refused.request, refused.session, refused.reason) == ("r2", "v", "exhausted")
    bus.start()  # what was refused is not refused again
    bus.turn()
    assert len(bus.log.select(events.RequestRefused)) == 1
    bus.turn(events.TrialRequested(study="s", request="r4", session="v", ends_with_study=True))
    assert [event.request for event in bus.log.select(events.RequestRefused)] == ["r2", "r4"]
    bus.submit(n_trials=2)
    assert bus.log.select(events.TrialAssigned)[-1].request == "patient"


def test_evaluations_of_an_attempt_that_was_given_up_change_nothing(bus: SimulatedBus) -> None:
    bus.submit(max_retries=1)
    first = bus.request("r1")
    bus.turn(evaluate(first, 0, 1.0), events.TrainerLost(session="w", kind="worker"))
    second = bus.request("r2", session="another")
    assert (second.trial, second.attempt) == (first.trial, 1)
    bus.turn(evaluate(first, 1, 99.0), evaluate(second, 0, 2.0), complete(first))
    assert bus.log.select(events.Prune) == []
    [trial] = bus.trials()
    assert trial.state is TrialState.RUNNING
    assert trial.intermediate_values == {0: 2.0}
    assert bus.loop.get_status().refused == {"its trial, or this attempt of it, does not run": 1}
    bus.turn(evaluate(second, 1, 99.0))
    assert [(event.attempt, event.step) for event in bus.log.select(events.Prune)] == [(1, 1)]


def test_a_study_whose_pruner_raises_ends_alone(
    bus: SimulatedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = PruneDecider.decide

    def raise_for_one(
        self: PruneDecider, number: int, step: int, metrics: Mapping[str, float]
    ) -> str | None:
        if metrics["loss"] == 7.0:
            raise RuntimeError("no decision")
        return decide(self, number, step, metrics)

    monkeypatch.setattr(PruneDecider, "decide", raise_for_one)
    bus.submit(name="failing")
    bus.submit(n_trials=1)
    failing, trial = bus.request("r1", "failing"), bus.request("r2")
    bus.turn(evaluate(failing, 0, 7.0), evaluate(trial, 0, 1.0))
    [end] = bus.log.select(events.StudyFinished, "failing")
    assert (end.reason, end.error) == ("failed", "RuntimeError: no decision")
    assert bus.find_end("failing") == "failed"
    bus.turn(evaluate(failing, 1, 7.0), evaluate(trial, 1, 0.5), complete(trial))
    assert len(bus.log.select(events.StudyFinished, "failing")) == 1
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.best_trials[0].values) == ("exhausted", [0.5])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"params": {"x": CategoricalParam(choices=("a", "b"))}}, "study.params.x"),
        (
            {"objectives": (Objective(metric="loss", direction="maximize"),)},
            "study.objective.direction",
        ),
        ({"sampler": Component(type="NoSampler")}, "sampler.type"),
        ({"constraints": ("loss <",)}, "study.constraints[0]"),
    ],
)
def test_nothing_is_written_to_the_study_of_the_storage_for_a_submission_that_is_refused(
    bus: SimulatedBus, changes: dict[str, Any], key: str
) -> None:
    study = optuna.create_study(study_name="s", storage=bus.database)
    study.set_user_attr("mine", 1)
    study.ask({"x": FloatDistribution(0, 1)})
    trials = study.get_trials()
    bus.submit(**changes)
    [end] = bus.log.select(events.StudyFinished)
    assert str(end.error).startswith(f"{key}: ")
    assert bus.storage.flush(20)
    assert study.user_attrs == {"mine": 1}
    assert study.get_trials() == trials
    optuna.delete_study(study_name="s", storage=bus.database)
    bus.submit()
    assert bus.request().trial == 0, "the study that was deleted is forgotten"


@pytest.mark.parametrize("method", ["record_study_end", "release"])
@pytest.mark.parametrize("how", ["exhausted", "failed"])
def test_a_study_whose_end_cannot_be_recorded_ends_alone(
    bus: SimulatedBus, method: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(StudyRecorder, method)

    def raise_for_one(self: StudyRecorder, *args: Any) -> None:
        if self.study.study_name == "failing":
            raise RuntimeError("no end")
        original(self, *args)

    monkeypatch.setattr(StudyRecorder, method, raise_for_one)
    bus.submit(name="failing", n_trials=1)
    bus.submit(n_trials=1)
    failing, trial = bus.request("r1", "failing"), bus.request("r2")
    if how == "exhausted":
        bus.turn(evaluate(failing, 0, 1.0), complete(failing))
    else:
        monkeypatch.setattr(PruneDecider, "decide", None)
        bus.turn(evaluate(failing, 0, 1.0))
        monkeypatch.undo()
    [end] = bus.log.select(events.StudyFinished, "failing")
    assert end.reason == "failed"
    assert str(end.error).startswith("RuntimeError" if how == "exhausted" else "TypeError")
    bus.turn(evaluate(trial, 0, 0.5), complete(trial))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.best_trials[0].values) == ("exhausted", [0.5])


def test_a_study_whose_sampler_fails_ends_alone(
    bus: SimulatedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.submit(name="failing")
    monkeypatch.setattr(Sampler, "error", "no suggestion")
    bus.turn(events.TrialRequested(study="failing", request="r1", session="w"))
    monkeypatch.setattr(Sampler, "error", None)
    bus.submit()
    assert bus.request("r2").trial == 0
    [end] = bus.log.select(events.StudyFinished, "failing")
    assert (end.reason, end.error) == ("failed", "no suggestion")
    assert bus.log.select(events.StudyFinished) == []


def test_a_study_whose_sampler_fails_keeps_the_results_of_the_trials_that_run(
    bus: SimulatedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.submit()
    trial = bus.request("r1")
    monkeypatch.setattr(Sampler, "error", "no suggestion")
    bus.turn(events.TrialRequested(study="s", request="r2", session="w"), evaluate(trial, 0, 2.0))
    assert bus.log.select(events.StudyFinished) == []
    bus.turn(evaluate(trial, 1, 1.0), complete(trial))
    assert [t.state for t in bus.trials()] == [TrialState.COMPLETE]
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.error, end.counts.complete) == ("failed", "no suggestion", 1)
    assert [best.values for best in end.best_trials] == [[1.0]]


def test_a_study_that_cannot_go_on_ends_its_running_trials_in_the_database_and_their_trainings(
    bus: SimulatedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.submit()
    running, waiting = bus.request("r1"), bus.request("r2", session="v")
    bus.turn(events.TrainerLost(session="v", kind="worker"))
    monkeypatch.setattr(PruneDecider, "decide", None)
    bus.turn(evaluate(running, 0, 1.0))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.failed) == ("failed", 2)
    [prune] = bus.log.select(events.Prune)
    assert (prune.trial, prune.reason) == (running.trial, f"the study failed: {end.error}")
    trials = bus.trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.FAIL]
    assert [trial.user_attrs[CAUSE] for trial in trials] == ["preempted", "lost"]
    assert trials[0].intermediate_values == {0: 1.0}
    verdicts = bus.log.select(events.TrialClosed)
    assert {(verdict.trial, verdict.state) for verdict in verdicts} == {
        (running.trial, "failed"),
        (waiting.trial, "failed"),
    }
    monkeypatch.undo()
    bus.turn(events.StudySubmitted(study="s", spec=SPEC, submission="2", at=bus.clock.now))
    assert bus.request("r3").trial == 2, "trials that have ended are not handed out again"


def test_a_wrong_submission_of_a_study_that_runs_ends_its_trials_in_the_database(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    trial = bus.request()
    bus.turn(evaluate(trial, 0, 1.0))
    wrong = msgspec.structs.replace(
        SPEC, objectives=(Objective(metric="loss", direction="maximize"),)
    )
    bus.turn(events.StudySubmitted(study="s", spec=wrong, submission="2", at=bus.clock.now))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.submission, end.reason, end.counts.failed) == ("2", "failed", 1)
    assert str(end.error).startswith("study.objective.direction: ['maximize'] does not fit")
    [prune] = bus.log.select(events.Prune)
    assert prune.trial == trial.trial
    assert [t.state for t in bus.trials()] == [TrialState.FAIL]
    bus.turn(events.StudySubmitted(study="s", spec=SPEC, submission="3", at=bus.clock.now))
    assert bus.request("r2").trial == 1


def test_a_trial_that_is_pruned_for_its_last_value_has_that_reason(bus: SimulatedBus) -> None:
    bus.submit(nan="prune")
    trial = bus.request()
    bus.turn(evaluate(trial, 0, 1.0))
    bus.turn(msgspec.structs.replace(complete(trial), values=[math.nan]))
    bus.turn(events.Stop(study="s"))
    [verdict] = bus.log.select(events.TrialClosed)
    assert verdict.state == "pruned"
    assert verdict.reason == "study.objective.metric 'loss' is NaN (study.nan=prune)"


def test_a_study_that_is_submitted_again_while_it_runs_has_run_since_its_first_submission(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    trial = bus.request()
    bus.clock.now += 100
    bus.turn(events.StudySubmitted(study="s", spec=SPEC, submission="2", at=bus.clock.now))
    assert bus.log.select(events.StudyStarted)[-1].elapsed_s > 100
    bus.clock.now += 50
    bus.turn(evaluate(trial, 0, 1.0), complete(trial), events.Stop(study="s"))
    study = optuna.load_study(study_name="s", storage=bus.database)
    assert 150 < study.user_attrs[ELAPSED] < 200


def test_a_study_that_is_resumed_after_its_optimizer_has_not_run_between(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    bus.request()
    bus.turn()
    bus.loop.close(20)
    bus.clock.now += 1000
    bus.start()
    bus.turn(events.StudySubmitted(study="s", spec=SPEC, submission="2", at=bus.clock.now))
    assert 0 < bus.log.select(events.StudyStarted)[-1].elapsed_s < 100


@pytest.mark.parametrize("is_restarted", [True, False], ids=["restarted", "serving"])
def test_a_study_has_not_run_between_its_submissions_of_which_some_ran_no_trial(
    bus: SimulatedBus, *, is_restarted: bool
) -> None:
    def wait() -> None:
        if is_restarted:
            bus.loop.close(20)
        bus.clock.now += 1000
        if is_restarted:
            bus.start()

    bus.submit(n_trials=1)
    bus.turn()
    if is_restarted:  # or else it has waited for a worker meanwhile
        wait()
    bus.submit("2", n_trials=1)
    trial = bus.request()
    bus.turn(evaluate(trial, 0, 1.0), complete(trial))
    for submission in ("3", "4"):
        wait()
        bus.submit(submission, n_trials=1, budget=4)
        bus.turn()
    assert len(bus.log.select(events.StudyFinished)) == 3
    study = optuna.load_study(study_name="s", storage=bus.database)
    assert 0 < study.user_attrs[ELAPSED] < 100
    assert bus.log.select(events.StudyStarted)[-1].elapsed_s < 100


def test_the_time_between_the_attempts_of_a_trial_is_not_time_that_the_trial_ran(
    bus: SimulatedBus,
) -> None:
    bus.submit(n_trials=1)
    first = bus.request("first")
    given_back = events.TrialFinished(study="s", trial=0, state="preempted", at=first.at + 10)
    bus.turn(given_back)
    bus.clock.now += 1000
    second = bus.request("second")
    end = msgspec.structs.replace(complete(second), at=second.at + 5)
    bus.turn(evaluate(second, 0, 0.5), end)
    assert second.at - first.at > 1000
    [trial] = optuna.load_study(study_name="s", storage=bus.database).trials
    assert trial.user_attrs[RAN] == 15


def test_the_offset_is_committed_when_everything_before_it_is_recorded_and_acknowledged(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    trial = bus.request()
    bus.storage.flush(20)
    bus.turn()
    committed = bus.log.committed
    assert committed > 0
    bus.storage.is_held = True
    bus.turn(evaluate(trial, 0, 1.0))
    bus.turn()
    assert bus.log.committed == committed, "not recorded"
    bus.log.is_acknowledging = False
    bus.storage.flush(20)
    bus.turn()
    assert bus.log.committed == committed, "not acknowledged"
    bus.log.is_acknowledging = True
    bus.turn()
    assert bus.log.committed > committed
    assert bus.trials()[0].intermediate_values == {0: 1.0}


def test_the_offset_is_committed_only_after_the_answers_to_the_events_before_it_are_published(
    bus: SimulatedBus,
) -> None:
    """Also where the storage records everything between publishing and committing."""
    clients = BusClients(bus.log, bus.log, bus.log, 0)
    announcer = Announcer(bus.storage, clients, answer_latency=Latency(), clock=bus.clock)
    bus.storage.is_held = True
    bus.storage.create_new_study([StudyDirection.MINIMIZE], "s")
    bus.storage.set_study_user_attr(0, "key", "value")
    announcer.announce(events.Prune(study="s", trial=0, step=0))
    bus.log.offset = 5
    announcer.publish_recorded()
    bus.storage.flush(20)
    announcer.commit(hold=False)
    assert bus.log.committed == 0
    announcer.publish_recorded()
    announcer.commit(hold=False)
    assert bus.log.committed == 5


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_restart_in_the_middle_applies_nothing_twice(
    bus: SimulatedBus, is_recorded: bool
) -> None:
    bus.submit(n_trials=2)
    first, second = bus.request("r1"), bus.request("r2")
    bus.storage.flush(20)
    bus.turn()
    assert bus.log.committed > 0
    bus.storage.is_held = True
    bus.log.is_acknowledging = False
    bus.turn(evaluate(first, 0, 3.0), evaluate(first, 1, 2.0), complete(first))
    if is_recorded:
        bus.storage.flush(20)
    bus.start()
    bus.log.is_acknowledging = True
    bus.turn(evaluate(second, 0, 99.0))
    bus.turn(evaluate(second, 1, 1.0), complete(second))
    trials = bus.trials()
    assert [trial.values for trial in trials] == [[2.0], [1.0]]
    assert trials[0].intermediate_values == {0: 3.0, 1: 2.0}
    assert [event.step for event in bus.log.select(events.Prune)] == [0]
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.complete) == ("exhausted", 2)


def test_the_storage_has_the_names_of_the_metrics(bus: SimulatedBus) -> None:
    bus.submit()
    assert bus.storage.flush(20)
    study_id = bus.database.get_study_id_from_name("s")
    assert bus.database.get_study_system_attrs(study_id) == {"study:metric_names": ["loss"]}


def test_an_evaluation_from_before_the_commit_counts_after_a_restart(bus: SimulatedBus) -> None:
    bus.submit(n_trials=1)
    trial = bus.request()
    bus.turn(evaluate(trial, 0, 0.25))
    bus.storage.flush(20)
    bus.turn()
    assert bus.log.committed == bus.log.end
    bus.start()
    bus.turn(complete(trial))
    assert bus.trials()[0].values == [0.25]


def test_a_study_ends_at_its_timeout_and_waits_for_the_trial_that_runs(bus: SimulatedBus) -> None:
    bus.submit(timeout_s=100.0)
    trial = bus.request("r1")
    bus.clock.now += 50.0
    bus.turn(evaluate(trial, 0, 1.0))
    assert bus.log.select(events.StudyFinished) == []
    bus.clock.now += 50.0
    bus.turn(events.TrialRequested(study="s", request="r2", session="w"))
    assert len(bus.log.select(events.TrialAssigned)) == 1
    assert bus.log.select(events.StudyFinished) == []
    bus.turn(complete(trial))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.complete) == ("timeout", 1)


def test_a_study_ends_when_a_trial_reaches_the_target(bus: SimulatedBus) -> None:
    bus.submit(target=0.5)
    for loss in (0.75, 0.5):
        assert bus.log.select(events.StudyFinished) == []
        trial = bus.request(f"request for {loss}")
        bus.turn(evaluate(trial, 0, loss), complete(trial))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.error) == ("converged", "0.5 reaches study.target=0.5")


@pytest.mark.parametrize("how", ["exhausted", "stopped", "failed"])
def test_a_study_is_declared_finished_only_when_the_storage_has_its_end(
    bus: SimulatedBus, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What launcher and runner rely on when they read the storage once, at `study_finished`."""
    ends: list[str | None] = []

    def read_end(event: events.Event) -> None:
        if isinstance(event, events.StudyFinished):
            ends.append(bus.find_end())

    bus.log.on_publish = read_end
    bus.submit(n_trials=1)
    if how == "exhausted":
        trial = bus.request()
        bus.turn(evaluate(trial, 0, 1.0), complete(trial))
    elif how == "stopped":
        bus.turn(events.Stop(study="s", reason="enough"))
    else:
        monkeypatch.setattr(Sampler, "error", "no suggestion")
        bus.turn(events.TrialRequested(study="s", request="r", session="w"))
    assert ends == [how]


def test_a_trial_is_handed_out_only_when_the_storage_has_it(bus: SimulatedBus) -> None:
    numbers: list[list[int]] = []

    def read_trials(event: events.Event) -> None:
        if isinstance(event, events.TrialAssigned):
            study = optuna.load_study(study_name="s", storage=bus.database)
            numbers.append([trial.number for trial in study.trials])

    bus.log.on_publish = read_trials
    bus.submit()
    bus.request()
    assert numbers == [[0]]


def test_a_request_that_arrives_after_the_loss_of_its_session_gets_no_trial(
    bus: SimulatedBus,
) -> None:
    bus.submit(n_trials=1)
    bus.turn(
        events.TrainerLost(session="dead", kind="worker"),
        events.TrialRequested(study="s", request="r1", session="dead"),
    )
    assert bus.log.select(events.TrialAssigned) == []
    assert bus.request("r2").session == "w"


def test_a_trial_left_by_a_crash_begins_another_attempt_for_another_request(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    bus.storage.is_held = True
    bus.turn(events.TrialRequested(study="s", request="r1", session="w"))
    bus.storage.flush(20)
    bus.start()  # the answer to `r1` may still come from shared memory
    bus.turn(events.RequestWithdrawn(study="s", request="r1"))
    second = bus.request("r2")
    assert (second.trial, second.attempt) == (0, 1)


def find_verdicts(bus: SimulatedBus) -> list[tuple[int, str]]:
    """Return number and state of each verdict in the log, after everything is recorded."""
    assert bus.storage.flush(20)
    bus.turn()
    return [(event.trial, event.state) for event in bus.log.select(events.TrialClosed)]


def test_a_verdict_is_published_behind_the_storage_with_the_optimizer_s_reason(
    bus: SimulatedBus,
) -> None:
    bus.submit(constraints=("size <= 10",))
    trial = bus.request()
    nan = {"loss": 0.5, "size": math.nan}
    bus.storage.is_held = True
    bus.turn(events.EvaluationComplete(study="s", trial=0, step=0, metrics=nan), complete(trial))
    assert bus.log.select(events.TrialClosed) == []
    bus.storage.is_held = False
    assert find_verdicts(bus) == [(0, "failed")]
    [verdict] = bus.log.select(events.TrialClosed)
    assert verdict.error == "study.constraints[0] 'size <= 10' is nan"
    assert verdict.counts == events.TrialCounts(failed=1)


def test_a_verdict_that_was_recorded_and_not_published_before_a_crash_is_published_after(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    trial = bus.request()
    bus.storage.flush(20)
    bus.turn()
    bus.storage.is_held = True
    bus.turn(evaluate(trial, 0, 0.5), complete(trial))
    assert bus.storage.flush(20)
    assert bus.log.select(events.TrialClosed) == []
    bus.start()  # killed with the trial recorded and its verdict unpublished
    bus.turn()
    assert find_verdicts(bus) == [(0, "complete")]
    [verdict] = bus.log.select(events.TrialClosed)
    assert (verdict.values, verdict.counts) == ([0.5], events.TrialCounts(complete=1))


def test_a_trial_whose_training_was_killed_is_handed_out_again_and_keeps_its_causes(
    bus: SimulatedBus,
) -> None:
    bus.submit(max_retries=1)
    for attempt in range(2):
        trial = bus.request(f"r{attempt}")
        assert (trial.trial, trial.attempt) == (0, attempt)
        bus.turn(
            events.TrialFinished(
                study="s", trial=0, attempt=attempt, state="failed", exit_code=-9, error="SIGKILL"
            )
        )
    assert find_verdicts(bus) == [(0, "failed")]
    [verdict] = bus.log.select(events.TrialClosed)
    assert (verdict.cause, verdict.causes, verdict.attempts) == ("killed", ["killed"], 2)
    assert verdict.error == "SIGKILL (2 times, study.max_retries=1)"
    attributes = bus.trials()[0].user_attrs
    assert attributes[CAUSE] == "killed"
    assert attributes[CAUSES] == ["killed"]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_trial_that_is_given_back_without_end_is_closed_and_new_steps_are_free(
    bus: SimulatedBus, is_restarted: bool
) -> None:
    bus.submit(max_retries=0, retries={"preempted": 1})
    for attempt, step in enumerate([0, 1, 1, 2, 0]):
        trial = bus.request(f"r{attempt}")
        assert (trial.trial, trial.attempt) == (0, attempt)
        bus.turn(evaluate(trial, step, 0.5))
        if is_restarted:
            bus.storage.flush(20)
            bus.turn()
            bus.start()
        preempted = events.TrialFinished(study="s", trial=0, attempt=attempt, state="preempted")
        bus.turn(preempted)
        if is_restarted:
            bus.start()
        assert find_verdicts(bus) == []
    trial = bus.request("last")
    bus.turn(events.TrialFinished(study="s", trial=0, attempt=5, state="preempted"))
    assert find_verdicts(bus) == [(0, "failed")]
    [verdict] = bus.log.select(events.TrialClosed)
    assert verdict.cause == "preempted"
    assert str(verdict.error).startswith("given back 2 times in a row without a new step")
    assert bus.request("next").trial == 1


def test_of_equal_trials_the_first_is_the_best_at_the_end_whichever_ended_first(
    bus: SimulatedBus,
) -> None:
    bus.submit(n_trials=2)
    first, second = bus.request("a"), bus.request("b")
    for trial in (second, first):
        bus.turn(evaluate(trial, 0, 0.5), complete(trial))
    [ended] = bus.log.select(events.StudyFinished)
    assert [best.number for best in ended.best_trials] == [0]


def test_a_resumed_study_tells_what_is_recorded(bus: SimulatedBus) -> None:
    bus.submit(n_trials=1)
    trial = bus.request()
    bus.turn(evaluate(trial, 0, 0.5), complete(trial))
    bus.clock.now += 100.0
    bus.submit(n_trials=2)
    started = bus.log.select(events.StudyStarted)[-1]
    assert started.counts == events.TrialCounts(complete=1)
    assert [best.values for best in started.best_trials] == [[0.5]]
    assert 0 < started.elapsed_s < 100


def test_a_submission_that_fails_tells_what_is_recorded(bus: SimulatedBus) -> None:
    bus.submit(n_trials=1)
    trial = bus.request()
    bus.turn(evaluate(trial, 0, 0.5), complete(trial))
    bus.submit(sampler=Component(type="NoSampler"))
    end = bus.log.select(events.StudyFinished)[-1]
    assert (end.reason, end.counts) == ("failed", events.TrialCounts(complete=1))
    assert [best.values for best in end.best_trials] == [[0.5]]


def test_a_first_trial_without_the_objective_s_metric_ends_the_study(bus: SimulatedBus) -> None:
    bus.submit()
    trial = bus.request()
    misspelt = events.EvaluationComplete(study="s", trial=0, step=0, metrics={"los": 0.5})
    bus.turn(misspelt, complete(trial))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts) == ("failed", events.TrialCounts(failed=1))
    assert end.error == (
        "trial 0 failed: study.objective.metric 'loss' was never reported; the trainer reported: "
        "los; did you mean 'los'? (study.on_missing_metric=stop)"
    )


def test_a_later_trial_without_the_objective_s_metric_only_fails(bus: SimulatedBus) -> None:
    bus.submit()
    first, second = bus.request("r1"), bus.request("r2")
    bus.turn(evaluate(first, 0, 0.5))
    bus.turn(complete(second))
    assert bus.log.select(events.StudyFinished) == []
    bus.turn(complete(first))
    assert find_verdicts(bus) == [(1, "failed"), (0, "complete")]
    assert bus.request("r3").trial == 2


def test_with_on_missing_metric_fail_the_study_goes_on(bus: SimulatedBus) -> None:
    bus.submit(on_missing_metric="fail")
    bus.turn(complete(bus.request()))
    assert bus.log.select(events.StudyFinished) == []
    assert bus.request("r2").trial == 1


def test_the_time_of_a_study_begins_with_its_first_trial_by_the_optimizer_s_clock(
    bus: SimulatedBus,
) -> None:
    behind = events.StudySubmitted(
        study="s",
        spec=msgspec.structs.replace(SPEC, timeout_s=50.0),
        submission="1",
        at=bus.clock.now - 7200.0,  # the clock of whoever submitted is two hours behind
    )
    bus.turn(behind)
    bus.clock.now += 100.0
    bus.turn()
    assert bus.log.select(events.StudyFinished) == []
    trial = bus.request()
    bus.clock.now += 40.0
    bus.storage.flush(20)
    bus.turn()
    bus.start()
    bus.turn()
    assert bus.request("r2").trial == 1
    bus.clock.now += 10.0
    bus.turn(events.TrialRequested(study="s", request="r3", session="w"))
    assert len(bus.log.select(events.TrialAssigned)) == 2
    assert bus.log.select(events.Prune) == [], "running trials finish"
    for number, attempt in ((trial.trial, 0), (1, 0)):
        bus.turn(
            events.TrialFinished(
                study="s", trial=number, attempt=attempt, state="complete", values=[0.5]
            )
        )
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.complete) == ("timeout", 2)


def test_running_trials_are_pruned_once_when_the_grace_is_over_too(bus: SimulatedBus) -> None:
    bus.submit(timeout_s=50.0, timeout_grace_s=20.0)
    trial = bus.request()
    bus.clock.now += 60.0
    bus.turn()
    assert bus.log.select(events.Prune) == []
    bus.clock.now += 20.0
    bus.turn()
    bus.turn()
    [prune] = bus.log.select(events.Prune)
    assert (prune.trial, prune.reason) == (
        trial.trial,
        "study.timeout_s=50 and timeout_grace_s=20 are over",
    )
    bus.turn(events.TrialFinished(study="s", trial=0, state="pruned"))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.pruned) == ("timeout", 1)


def test_a_study_whose_end_cannot_be_recorded_for_long_ends_as_failed_and_is_recorded_later(
    bus: SimulatedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.submit(n_trials=1)
    trial = bus.request()
    bus.storage.flush(20)
    bus.turn()
    committed = bus.log.committed
    with monkeypatch.context() as context:
        context.setattr(ApiWriter, "write", raise_disk_full)
        bus.storage.is_held = True
        bus.turn(complete_with_value(trial))
        assert not bus.storage.flush(0.5)
        until(lambda: bus.storage.failing_since is not None)
        bus.turn()
        assert bus.log.select(events.StudyFinished) == []
        bus.clock.now += 61.0
        bus.turn()
        [end] = bus.log.select(events.StudyFinished)
        assert end.reason == "failed"
        assert "the study's end (exhausted) could not be recorded: disk full" in str(end.error)
        assert bus.log.committed == committed
    bus.storage.is_held = False
    assert bus.storage.flush(20)
    assert [trial.value for trial in bus.trials()] == [0.5]
    bus.turn()
    assert len(bus.log.select(events.StudyFinished)) == 1
    bus.turn()
    assert bus.log.committed > committed


def complete_with_value(assigned: events.TrialAssigned) -> events.TrialFinished:
    return events.TrialFinished(
        study="s", trial=assigned.trial, attempt=assigned.attempt, state="complete", values=[0.5]
    )


def raise_disk_full(*_: object) -> None:
    raise OSError("disk full")
