"""The optimizer as a process, with a scripted worker on a real hub."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import optuna

import trialbus
from support.client import SPEC, Client, load_study, start_optimizer
from support.processes import Bus
from support.until import until
from trialbus.messages import events
from trialbus.study.search_space import Param
from trialbus_services.optimizer.attributes import END


def test_a_study_is_recorded_as_plain_optuna_reads_it(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    submission = worker.submit()
    for _ in range(8):
        worker.run_one()
    finished = worker.next(trialbus.StudyFinished)
    assert (finished.submission, finished.reason, finished.counts.complete) == (
        submission,
        "exhausted",
        8,
    )
    trials = load_study(bus).trials
    assert [trial.number for trial in trials] == list(range(8))
    for trial in trials:
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.intermediate_values == {
            s: trial.params["x"] ** 2 + 1 / (s + 1) for s in range(3)
        }
        assert trial.value == trial.intermediate_values[2]
    assert finished.best_trials[0].number == load_study(bus).best_trial.number


def test_the_sequence_of_suggestions_for_a_seed_is_that_of_plain_optuna(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    ours = [worker.run_one().params for _ in range(8)]
    plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    theirs = [
        (trial.suggest_float("x", -3, 3), trial.suggest_categorical("kind", ["a", "b"]))
        for trial in (plain.ask() for _ in range(8))
    ]
    assert [(p["x"], p["kind"]) for p in ours] == theirs


def test_the_same_request_twice_hands_out_one_trial(bus: Bus, client: Callable[[], Client]) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    first = worker.ask(request="r1")
    worker.publisher.publish(
        events.TrialRequested(study=SPEC.name, request="r1", session=worker.presence.session)
    )
    second = worker.ask()
    assert (first.trial, second.trial) == (0, 1)


def test_a_median_pruner_prunes_over_the_bus(bus: Bus, client: Callable[[], Client]) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    pruner = trialbus.Component(type="MedianPruner", args={"n_startup_trials": 2})
    worker.submit(msgspec.structs.replace(SPEC, pruner=pruner))
    for _ in range(2):
        worker.run_one()
    bad = worker.ask()
    worker.report(bad, 0, loss=1000.0)
    prune = worker.next(trialbus.Prune)
    assert (prune.trial, prune.attempt, prune.step) == (bad.trial, 0, 0)
    worker.finish(bad, "pruned")
    until(lambda: load_study(bus).trials[2].state == optuna.trial.TrialState.PRUNED)
    assert load_study(bus).trials[2].intermediate_values == {0: 1000.0}


def test_an_optimizer_killed_between_events_loses_and_repeats_no_trial(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    process = start_optimizer(bus)
    worker = client()
    worker.submit()
    for _ in range(3):
        worker.run_one()
    open_trial = worker.ask()
    worker.report(open_trial, 0, loss=7.0)
    process.kill()
    worker.report(open_trial, 1, loss=6.0)
    process.start()
    worker.report(open_trial, 2, loss=5.0)
    worker.finish(open_trial)
    for _ in range(4):
        worker.run_one()
    worker.next(trialbus.StudyFinished)
    trials = load_study(bus).trials
    assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * 8
    assert trials[open_trial.trial].intermediate_values == {0: 7.0, 1: 6.0, 2: 5.0}


def test_a_lost_worker_s_trial_is_handed_out_again_and_its_late_events_are_not_applied(
    bus: Bus, client: Callable[..., Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    lost, other = client(ttl_s=1), client()
    lost.submit()
    trial = lost.ask()
    # Sends no heartbeat from now on, like a machine without power.
    lost.link.detach(lost.presence)
    event = other.next(trialbus.TrainerLost)
    assert event.session == lost.presence.session
    again = other.ask()
    assert (again.trial, again.attempt, again.params) == (trial.trial, 1, trial.params)
    lost.report(trial, 0, loss=-1.0)
    other.report(again, 0, loss=4.0)
    lost.finish(trial, "failed", error="late")
    other.finish(again)
    until(lambda: load_study(bus).best_trials)
    assert load_study(bus).trials[0].value == 4.0


def test_a_preempted_trial_is_handed_out_again(bus: Bus, client: Callable[[], Client]) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    first = worker.ask()
    worker.finish(first, "preempted")
    again = worker.ask()
    assert (again.trial, again.attempt, again.params) == (first.trial, 1, first.params)


def test_a_metric_that_is_never_reported_fails_the_study_and_names_the_key(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    trial = worker.ask()
    worker.report(trial, 0, accuracy=1.0)
    worker.finish(trial)
    finished = worker.next(trialbus.StudyFinished)
    assert (finished.reason, finished.counts.failed) == ("failed", 1)
    assert "study.objective.metric 'loss'" in str(finished.error)
    assert "the trainer reported: accuracy" in str(finished.error)
    assert {trial.state for trial in load_study(bus).trials} == {optuna.trial.TrialState.FAIL}


def test_a_study_with_a_wrong_sampler_is_refused_and_others_continue(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    sampler = trialbus.Component(type="TPSampler")
    worker.submit(msgspec.structs.replace(SPEC, name="wrong", sampler=sampler))
    refused = worker.next(trialbus.StudyFinished, study="wrong")
    assert "did you mean 'TPESampler'" in str(refused.error)
    assert worker.run_one().study == SPEC.name


def test_stop_prunes_running_trials_and_finishes_the_study(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    worker.run_one()
    trial = worker.ask()
    worker.publisher.publish(trialbus.Stop(study=SPEC.name, reason="seen enough"))
    worker.next(trialbus.Prune, trial=trial.trial)
    worker.finish(trial, "pruned")
    finished = worker.next(trialbus.StudyFinished)
    assert (finished.reason, finished.counts.complete, finished.counts.pruned) == ("stopped", 1, 1)


def test_a_finished_study_goes_on_when_more_trials_are_asked_for(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit(msgspec.structs.replace(SPEC, n_trials=2))
    for _ in range(2):
        worker.run_one()
    worker.next(trialbus.StudyFinished)
    worker.submit(msgspec.structs.replace(SPEC, n_trials=3))
    assert worker.run_one().trial == 2
    finished = worker.next(trialbus.StudyFinished)
    assert finished.counts.complete == 3


def test_a_study_that_is_submitted_again_keeps_the_values_of_running_trials(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    objective = trialbus.Objective(metric="loss", direction="minimize", aggregate="best")
    spec = msgspec.structs.replace(SPEC, objectives=(objective,), n_trials=1)
    worker.submit(spec)
    trial = worker.ask()
    worker.report(trial, 0, loss=1.0)
    worker.submit(spec)
    worker.report(trial, 1, loss=2.0)
    worker.finish(trial)
    finished = worker.next(trialbus.StudyFinished)
    assert finished.best_trials[0].values == [1.0]
    assert load_study(bus).trials[0].intermediate_values == {0: 1.0, 1: 2.0}


def test_a_grid_that_is_exhausted_finishes_the_study(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    params: dict[str, Param] = {
        "x": trialbus.IntParam(low=1, high=2),
        "kind": trialbus.CategoricalParam(choices=("a", "b")),
    }
    sampler = trialbus.Component(type="GridSampler")
    worker.submit(msgspec.structs.replace(SPEC, params=params, sampler=sampler, n_trials=100))
    seen = {tuple(worker.run_one().params.values()) for _ in range(4)}
    finished = worker.next(trialbus.StudyFinished)
    assert (finished.reason, finished.counts.complete, len(seen)) == ("exhausted", 4, 4)


def test_a_second_optimizer_is_refused_while_the_first_lives(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    client().submit()
    client().ask()
    second = bus.run("second", bus.processes["optimizer"].command)
    assert second.wait(30) == 3
    assert "optimizer 'optimizer' is already registered" in second.printed()


def test_a_study_is_announced_as_finished_only_when_its_end_is_in_the_storage(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit(msgspec.structs.replace(SPEC, n_trials=1))
    worker.run_one()
    finished = worker.next(trialbus.StudyFinished)
    assert load_study(bus).user_attrs[END] == finished.reason
