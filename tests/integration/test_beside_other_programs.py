"""Another program adds and tells trials in a database server while the study runs beside."""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
import optuna
import pytest
from optuna.trial import TrialState

import trialbus
from support.client import SPEC, Client
from support.databases import Databases
from support.processes import Bus
from support.until import until
from trialbus_services.optimizer.attributes import REQUEST

OTHER = """
import sys, time
import optuna
study = optuna.load_study(study_name="quadratic", storage=sys.argv[1])
space = {
    "x": optuna.distributions.FloatDistribution(-3, 3),
    "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
}
while True:
    trial = study.ask(space)
    trial.report(50.0, 0)
    trial.set_user_attr("mine", True)
    print(trial.number, flush=True)
    time.sleep(0.05)
    study.tell(trial, 50.0)
    time.sleep(0.15)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_the_study_skips_the_numbers_that_another_program_takes_and_ends_right(
    bus: Bus, databases: Databases, client: Callable[[], Client]
) -> None:
    url = databases.new()
    bus.hub()
    bus.service("optimizer", f"storage.url='{url}'")
    worker = client()
    worker.submit(msgspec.structs.replace(SPEC, n_trials=40))
    worker.run_one()
    study = optuna.load_study(study_name=SPEC.name, storage=databases.open(url))
    other = bus.run("other", [sys.executable, "-c", OTHER, url])
    until(lambda: other.printed().count("\n") >= 2, 30, "trials of the other program")
    ours: dict[int, trialbus.TrialAssigned] = {}
    while (trial := ask_or_end(worker)) is not None:
        ours[trial.trial] = trial
        for step in range(3):
            worker.report(trial, step, loss=float(trial.params["x"]) ** 2 + 1 / (step + 1))
        worker.finish(trial)
    other.kill()
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    theirs = {trial.number for trial in trials if "mine" in trial.user_attrs}
    assert theirs
    assert not theirs & ours.keys()
    for trial in trials:
        if trial.number in ours:
            assert REQUEST in trial.user_attrs
            assert trial.params == ours[trial.number].params
            assert trial.state is TrialState.COMPLETE
            assert trial.value == trial.params["x"] ** 2 + 1 / 3
        elif trial.number in theirs:
            assert REQUEST not in trial.user_attrs
            assert (trial.value, trial.intermediate_values) in [
                (50.0, {0: 50.0}),
                (None, {0: 50.0}),
            ]


def ask_or_end(worker: Client) -> trialbus.TrialAssigned | None:
    """Ask for a trial; None when the study has ended."""
    request = worker.request()
    while (event := worker.inbox.next(30)) is not None:
        if isinstance(event, trialbus.TrialAssigned) and event.request == request:
            return event
        if isinstance(event, trialbus.StudyFinished):
            assert event.reason == "exhausted", event.error
            assert event.counts.complete >= 40
            return None
    raise AssertionError("neither a trial nor the end of the study arrived")
