"""Attributes of trials through real processes: kept over a kill, and in logs read before."""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
import optuna
from optuna.trial import TrialState

import trialbus
from support.client import SPEC, Client, load_study, start_optimizer
from support.processes import Bus
from trialbus.client.admin import forget_name, hub_status
from trialbus_services.optimizer.loop import OptimizerLoop
from trialbus_services.optimizer.reading import READING

TRAINING = """
import os, signal, trialbus
with trialbus.attach() as trial:
    trial.report(0, {"loss": 1.0})
    trial.set_user_attr("attempt", trial.attempt)
    trial.set_user_attr(f"set by {trial.attempt}", [trial.number, None])
    if trial.attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_training_set_is_recorded_and_the_next_attempt_replaces_it(bus: Bus) -> None:
    (bus.directory / "train.py").write_text(TRAINING)
    command = [sys.executable, "-m", "trialbus_services", "study"]
    overrides = [
        "study=digits",
        "study.n_trials=2",
        "study.objective.metric=loss",
        "trainer.command=[python,train.py]",
        "storage.url=sqlite:///studies.db",
        "report.figures=[]",
    ]
    study = bus.run("study", [*command, *overrides])
    assert study.wait(60) == 0, study.printed()
    database = f"sqlite:///{bus.directory}/studies.db"
    trials = optuna.load_study(study_name=None, storage=database).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    for trial in trials:
        assert trial.user_attrs["attempt"] == 1
        assert trial.user_attrs["set by 0"] == [trial.number, None]
        assert trial.user_attrs["set by 1"] == [trial.number, None]


def test_an_optimizer_goes_on_in_a_log_that_an_earlier_version_has_read(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    optimizer = start_optimizer(bus)
    worker = client()
    worker.submit(msgspec.structs.replace(SPEC, n_trials=2))
    worker.run_one()
    worker.next(trialbus.TrialClosed)
    optimizer.stop()
    committed = hub_status(worker.link).durable[READING].offset
    rename_reading(worker.link, committed)
    optimizer.start()
    assert worker.run_one().trial == 1
    worker.next(trialbus.StudyFinished)
    assert [trial.state for trial in load_study(bus).trials] == [TrialState.COMPLETE] * 2
    names = hub_status(worker.link).durable
    assert "optimizer" not in names
    assert names[READING].offset >= committed


def rename_reading(link: trialbus.Link, committed: int) -> None:
    """Leave the durable name that an earlier version had, with the types that it read."""
    forget_name(link, READING)
    types = [type_ for type_ in OptimizerLoop.TYPES if type_ is not trialbus.TrialAttributeSet]
    with trialbus.subscribe(*types, name="optimizer", start=committed, link=link) as earlier:
        earlier.wait_ready(20)
