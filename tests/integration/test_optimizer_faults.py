"""The optimizer continues during failures of hub and storage, and reports the problems."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec
import optuna
import sqlalchemy
from optuna.trial import TrialState

import trialbus
from support.client import SPEC, Client, load_study, read_optimizer_status, start_optimizer
from support.databases import Server
from support.processes import Bus
from support.sampler import wait_for_sampler
from support.until import until
from trialbus.messages import events
from trialbus_services.optimizer.attributes import ATTEMPT, ERROR, LATE, STATE

THRESHOLD = msgspec.structs.replace(
    SPEC, pruner=trialbus.Component(type="ThresholdPruner", args={"upper": 10}), n_trials=2
)


def decides_without_the_storage(worker: Client, trial: trialbus.TrialAssigned) -> None:
    """Report while the storage is away, and be pruned all the same."""
    for step in range(500):
        worker.report(trial, step, loss=float(step) / 500)
    worker.report(trial, 500, loss=11.0)
    assert worker.next(trialbus.Prune).step == 500
    worker.finish(trial, "pruned")
    until(lambda: read_optimizer_status(worker.link).pending_rows >= 501, 20)


def test_with_the_database_locked_it_decides_and_records_afterwards(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit(THRESHOLD)
    trial = worker.ask()
    with closing(sqlite3.connect(bus.directory / "studies.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        decides_without_the_storage(worker, trial)
        until(lambda: "locked" in read_optimizer_status(worker.link).storage_error, 30)
        other.execute("ROLLBACK")
    worker.run_one()
    finished = worker.next(trialbus.StudyFinished)
    assert finished.counts == events.TrialCounts(complete=1, pruned=1)
    assert len(load_study(bus).trials[0].intermediate_values) == 501
    until(lambda: read_optimizer_status(worker.link).storage_error == "", 20)


def test_with_postgresql_unreachable_it_decides_and_records_afterwards(
    bus: Bus, client: Callable[[], Client], server: Server
) -> None:
    url = sqlalchemy.make_url(str(server("postgresql")))
    name = f"t{uuid.uuid4().hex}"
    administrator = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    there = url.set(database=name).render_as_string(hide_password=False)
    with administrator.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        bus.hub()
        bus.service("optimizer", f"storage.url='{there}'")
        worker = client()
        worker.submit(THRESHOLD)
        trial = worker.ask()
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        connection.exec_driver_sql(ends)
        decides_without_the_storage(worker, trial)
        until(
            lambda: "not currently accepting" in read_optimizer_status(worker.link).storage_error,
            20,
        )
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        worker.run_one()
        assert worker.next(trialbus.StudyFinished).counts.pruned == 1
    administrator.dispose()
    storage = optuna.storages.RDBStorage(there)
    found = optuna.load_study(study_name=SPEC.name, storage=storage)
    assert len(found.trials[0].intermediate_values) == 501
    storage.engine.dispose()


class Poison(events.TrialEvent, frozen=True, kw_only=True, tag="evaluation_complete"):
    """An evaluation that no trainer of trialbus would publish."""

    step: Any
    metrics: Any


def test_poisonous_events_are_counted_and_harm_nobody(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit(msgspec.structs.replace(SPEC, n_trials=3, nan="ignore"))
    before, trial = worker.run_one(), worker.ask()
    good = events.EvaluationComplete(
        study=trial.study, trial=trial.trial, attempt=0, step=0, metrics={"loss": 1.0}
    )
    changed = msgspec.structs.replace
    poison: tuple[events.Event, ...] = (
        changed(good, study="nobody's"),
        changed(good, trial=77),
        changed(good, attempt=5),
        changed(good, trial=before.trial, step=9),
        changed(good, step=1, metrics={f"m{i}": 1.0 for i in range(10_000)}),
        *(
            Poison(study=trial.study, trial=trial.trial, step=step, metrics=metrics)
            for step, metrics in (
                (1, {"loss": "low"}),
                (1, None),
                (2**63, {"loss": 1.0}),
                (-1, {"loss": 1.0}),
                (0.5, {"loss": 1.0}),
            )
        ),
    )
    for event in poison:
        worker.publisher.publish(event)
    worker.publisher.publish(good)
    worker.report(trial, 2, loss=math.nan)
    worker.report(trial, 3, loss=math.inf)
    worker.finish(trial)
    worker.finish(trial, "failed")
    last = worker.run_one()
    assert worker.next(trialbus.StudyFinished).counts.complete == 3
    until(lambda: read_optimizer_status(worker.link).n_refused >= len(poison), 20)
    found = load_study(bus)
    assert found.trials[trial.trial].intermediate_values == {0: 1.0}
    assert found.trials[trial.trial].value == 1.0
    assert found.trials[before.trial].user_attrs[LATE]["count"] == 1
    assert last.trial == 2


def test_a_sampler_that_is_killed_is_started_again(bus: Bus, client: Callable[[], Client]) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    worker.submit(msgspec.structs.replace(SPEC, n_trials=50))
    n_run = 0
    for n_killed in (1, 2, 3):
        worker.run_one()
        os.kill(wait_for_sampler(service.pid), signal.SIGKILL)
        while service.printed().count("was killed; it is started again") < n_killed:
            worker.run_one()
            n_run += 1
            assert n_run < 20, "a sampler that was killed is not missed"
    worker.publisher.publish(events.Stop(study=SPEC.name, reason="enough"))
    finished = worker.next(trialbus.StudyFinished)
    assert finished.reason == "stopped"
    assert finished.counts.complete == n_run + 3
    assert [trial.number for trial in load_study(bus).trials] == list(range(n_run + 3))


def test_a_sampler_that_stands_still_holds_up_no_other_study(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker, other = client(), client()
    worker.submit(msgspec.structs.replace(SPEC, name="stuck", n_trials=5))
    running = worker.ask("stuck")
    stuck = wait_for_sampler(service.pid)
    os.kill(stuck, signal.SIGSTOP)
    try:
        requests = [uuid.uuid4().hex for _ in range(3)]
        for request in requests:
            worker.publisher.publish(
                events.TrialRequested(
                    study="stuck", request=request, session=worker.presence.session
                )
            )
        worker.submit(SPEC)
        for _ in range(SPEC.n_trials):
            worker.run_one()
        assert worker.next(trialbus.StudyFinished).study == SPEC.name
        # The study whose sampler stands still is served otherwise.
        worker.report(running, 0, loss=0.5)
        worker.finish(running)
        until(lambda: load_study(bus, "stuck").trials[0].state is TrialState.COMPLETE)
    finally:
        os.kill(stuck, signal.SIGCONT)
    # Among them may be one that was suggested ahead of need.
    answered = {other.next(trialbus.TrialAssigned, study="stuck").request for _ in range(4)}
    assert answered == {running.request, *requests}


def test_lost_preempted_and_failed_trials_are_told_apart(
    bus: Bus, client: Callable[..., Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker, lost = client(), client(ttl_s=1)
    lost.submit(msgspec.structs.replace(SPEC, n_trials=3, max_retries=0, max_failures=None))
    lost.ask()
    lost.link.detach(lost.presence)
    worker.next(trialbus.TrainerLost)
    failed = worker.ask()
    worker.finish(failed, "failed", error="no luck")
    preempted = worker.ask()
    worker.finish(preempted, "preempted")
    again = worker.ask()
    assert (again.trial, again.attempt) == (preempted.trial, 1)
    worker.report(again, 0, loss=1.0)
    worker.finish(again)
    assert worker.next(trialbus.StudyFinished).counts == events.TrialCounts(complete=1, failed=2)
    attributes = [trial.user_attrs for trial in load_study(bus).trials]
    assert [found.get(STATE) for found in attributes] == ["lost", "failed", None]
    assert [found.get(ATTEMPT) for found in attributes] == [0, 0, 1]
    assert attributes[0][ERROR] == "lost 1 times (study.max_retries=0)"
    assert attributes[1][ERROR] == "no luck"
