"""The hub for users' own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import trialbus
from trialbus.testing import TestBus


@pytest.fixture
def bus() -> Iterator[TestBus]:
    with TestBus() as bus:
        yield bus


def my_training() -> int:
    steps = 0
    with trialbus.attach() as trial:
        for step in range(trial.budget):
            trial.report(step, {"loss": trial.params["lr"] / (step + 1)}, wait=0.05)
            steps += 1
    return steps


def test_a_training_can_be_tested_from_its_params_to_its_end(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.assign(monkeypatch.setenv, params={"lr": 0.5}, budget=3)
    assert my_training() == 3
    losses = [event.metrics["loss"] for event in bus.events(trialbus.EvaluationComplete)]
    assert losses == [0.5, 0.25, pytest.approx(0.5 / 3)]
    assert [event.state for event in bus.events(trialbus.TrialFinished)] == ["complete"]


def test_a_test_can_prune_a_trial_while_the_training_runs(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.assign(monkeypatch.setenv, params={"lr": 0.5}, budget=3)
    with trialbus.attach() as trial:
        trial.report(0, {"loss": 1.0})
        bus.prune()
        trial.report(1, {"loss": 1.0}, wait=20)
        pytest.fail("the trial was not pruned")
    assert [event.state for event in bus.events(trialbus.TrialFinished)] == ["pruned"]


def test_two_buses_at_once_share_no_events(bus: TestBus) -> None:
    with TestBus() as other:
        other.publish(trialbus.Stop(study="s"))
        assert not bus.events(trialbus.Stop)
        assert len(other.events(trialbus.Stop)) == 1


@pytest.mark.parametrize("name", ["a" * 256, "/" * 256], ids=["plain", "escaped in topics"])
def test_events_of_a_study_with_the_longest_name_reach_its_subscribers(
    bus: TestBus, name: str
) -> None:
    with trialbus.subscribe(
        trialbus.EvaluationComplete, study=name, endpoint=bus.endpoint
    ) as evaluations:
        evaluations.wait_ready(20)
        bus.publish(trialbus.EvaluationComplete(study=name, trial=2**31 - 1, step=0, metrics={}))
        event = evaluations.next(20)
    assert event is not None
    assert event.study == name
