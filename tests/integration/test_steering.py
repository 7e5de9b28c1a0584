"""Commands of people to a running study: enqueue, pause, resume and prune, on a real bus."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec
import optuna
import pytest
from optuna.trial import TrialState

import trialbus
from support.client import SPEC, Client, load_study, read_optimizer_status, start_optimizer
from support.processes import Bus
from support.until import until
from trialbus_services.optimizer.attributes import ENQUEUED, ENQUEUED_BY, PRUNED_BY

STUDY = SPEC.name


def enqueue(client: Client, **params: object) -> str:
    wish = uuid.uuid4().hex
    client.publisher.publish(
        trialbus.Enqueue(study=STUDY, params=params, enqueue=wish, by="ada@desk")
    )
    return wish


def trials(bus: Bus, state: TrialState) -> list[optuna.trial.FrozenTrial]:
    return load_study(bus).get_trials(deepcopy=False, states=(state,))


def test_an_enqueued_trial_survives_the_optimizer_s_death_and_is_run_once(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus, "optimizer.ahead=0")
    worker = client()
    worker.submit()
    worker.run_one()
    until(lambda: trials(bus, TrialState.COMPLETE), 20)
    service.kill()
    wish = enqueue(worker, x=1.25)
    assert worker.publisher.flush(10)
    service.start()
    (waiting,) = until(lambda: trials(bus, TrialState.WAITING), 30)
    assert waiting.user_attrs[ENQUEUED] == wish
    assert waiting.user_attrs[ENQUEUED_BY] == "ada@desk"
    service.restart()  # perhaps before the offset was committed: then the wish is read again
    assert worker.run_one().params["x"] == 1.25
    while worker.run_one().trial < 7:
        pass
    worker.next(trialbus.StudyFinished)
    assert [t.params["x"] for t in load_study(bus).trials].count(1.25) == 1


def test_enqueued_params_that_do_not_fit_are_refused_and_shown(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    worker.next(trialbus.StudyStarted)
    enqueue(worker, x=4.0)
    enqueue(worker, y=1.0)
    enqueue(worker, kind=["a"])
    worker.publisher.publish(trialbus.Enqueue(study="nobody", params={"x": 1}, enqueue="1"))
    until(lambda: read_optimizer_status(worker.link).n_refused == 4, 20, "four refusals")
    assert "'nobody'" in read_optimizer_status(worker.link).last_refused
    assert not trials(bus, TrialState.WAITING)
    enqueue(worker, x=2, kind="b")
    until(lambda: trials(bus, TrialState.WAITING), 20)


def test_a_paused_study_hands_out_nothing_also_after_a_restart_until_it_is_resumed(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    worker.submit()
    running = worker.ask()
    worker.publisher.publish(trialbus.Pause(study=STUDY, by="ada@desk"))
    worker.publisher.publish(
        trialbus.TrialRequested(study=STUDY, request="next", session=worker.presence.session)
    )
    worker.report(running, 0, loss=1.0)
    worker.finish(running)
    until(lambda: trials(bus, TrialState.COMPLETE), 20)
    service.restart()
    other = msgspec.structs.replace(SPEC, name="other")
    worker.submit(other)
    worker.ask("other")  # so everything before it has been read
    assert worker.publisher.flush(10)
    handed_out = [r.event for r in trialbus.replay(trialbus.TrialAssigned, link=worker.link)]
    assert [(e.study, e.trial) for e in handed_out if isinstance(e, trialbus.TrialAssigned)] == [
        (STUDY, 0),
        ("other", 0),
    ]
    worker.publisher.publish(trialbus.Resume(study=STUDY, by="ada@desk"))
    assert worker.next(trialbus.TrialAssigned, request="next").trial == 1


def test_a_trial_pruned_by_a_person_is_told_and_recorded_as_theirs(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    trial = worker.ask()
    channel = trialbus.subscribe(trialbus.Prune, study=STUDY, trial=trial.trial, link=worker.link)
    channel.wait_ready()
    worker.report(trial, 0, loss=1.0)
    worker.publisher.publish(
        trialbus.Prune(study=STUDY, trial=trial.trial, step=0, reason="flat", by="ada@desk")
    )
    heard = channel.next(20)
    assert heard is not None
    assert heard.attempt == trial.attempt
    worker.finish(trial, "pruned")
    (pruned,) = until(lambda: trials(bus, TrialState.PRUNED), 20)
    assert pruned.user_attrs[PRUNED_BY] == "ada@desk: flat"
    channel.close()


@pytest.mark.parametrize("first", ["prune", "loss"])
def test_a_trial_pruned_by_a_person_is_not_handed_out_again_when_its_trainer_is_lost(
    bus: Bus, client: Callable[[], Client], first: str
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    trial = worker.ask()
    steps = [
        lambda: worker.publisher.publish(
            trialbus.Prune(study=STUDY, trial=trial.trial, step=0, by="ada@desk")
        ),
        lambda: worker.finish(trial, "preempted"),
    ]
    for step in steps if first == "prune" else reversed(steps):
        step()
    (pruned,) = until(lambda: trials(bus, TrialState.PRUNED), 20)
    assert pruned.user_attrs[PRUNED_BY] == "ada@desk"
    assert worker.ask().trial == 1
