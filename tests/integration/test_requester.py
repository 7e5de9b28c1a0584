"""Trials for somebody else's jobs: requested up to a number, ended by the job or the requester."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import optuna
import pytest

import trialbus
from support.commands import small_study
from support.processes import Bus
from support.until import until

pytestmark = pytest.mark.timeout(120)

REPORT = "import trialbus; trialbus.report(0, {'loss': 3.0})"
COMPLETE = "import trialbus\nwith trialbus.attach() as trial: trial.complete(7.0)"


@pytest.fixture(name="requester")
def _requester(bus: Bus) -> Iterator[trialbus.TrialRequester]:
    bus.hub()
    bus.service(
        *("study", "launcher=none", "storage.url=sqlite:///studies.db"), *small_study(n_trials=5)
    )
    with trialbus.TrialRequester("quadratic", endpoint=bus.endpoint) as requester:
        yield requester


def run_job(trial: trialbus.RequestedTrial, code: str) -> None:
    environment = {**os.environ, **trial.environment}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def request(requester: trialbus.TrialRequester, number: int) -> list[trialbus.RequestedTrial]:
    trials = requester.request(number, timeout_s=60, gather_s=2)
    assert len(trials) == number
    return trials


def test_the_first_verdict_counts_and_the_end_of_the_study_is_heard(
    bus: Bus, requester: trialbus.TrialRequester
) -> None:
    first, second, third = request(requester, 3)
    run_job(first, REPORT)
    first.complete(1.0)  # the job has no `with` block: the requester has the only word
    run_job(second, COMPLETE)
    second.fail("too late")
    third.end_by(trialbus.TrialPruned("by its job"))
    fourth, fifth = request(requester, 2)
    fourth.end_by(ValueError("bad"))
    fifth.complete()  # without evaluations: the trial lacks its metric
    with pytest.raises(trialbus.StudyEndedError):
        requester.request(timeout_s=60)
    study = optuna.load_study(
        study_name="quadratic", storage=f"sqlite:///{bus.directory}/studies.db"
    )
    assert [(trial.state.name, trial.value) for trial in study.trials] == [
        *(("COMPLETE", 1.0), ("COMPLETE", 7.0), ("PRUNED", None), ("FAIL", None), ("FAIL", None))
    ]
    assert study.trials[0].intermediate_values == {0: 3.0}


def test_a_requester_that_ends_hands_its_trials_back(
    bus: Bus, requester: trialbus.TrialRequester
) -> None:
    (first,) = request(requester, 1)
    requester.close()
    with trialbus.TrialRequester("quadratic", endpoint=bus.endpoint) as other:
        again = until(lambda: other.request(timeout_s=20))
        assert [(trial.number, trial.attempt) for trial in again] == [(first.number, 1)]


def test_nothing_is_returned_after_the_time_limit_and_a_wrong_number_is_refused(bus: Bus) -> None:
    bus.hub()
    with trialbus.TrialRequester("nobody", endpoint=bus.endpoint) as requester:
        assert requester.request(timeout_s=0.1) == []
        with pytest.raises(ValueError, match="up_to 0 is below 1"):
            requester.request(0)


def test_a_requester_needs_a_hub(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trialbus.trainer.requester._CONNECT_S", 0.1)
    with pytest.raises(trialbus.HubUnavailableError):
        trialbus.TrialRequester("quadratic", endpoint=bus.endpoint)
