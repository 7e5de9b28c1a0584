"""A worker ends by itself: after its study, after a number of trials, after a time without."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

import trialbus
from support.client import SPEC, Client, start_optimizer
from support.commands import small_study
from support.processes import Bus, Managed


@pytest.mark.timeout(120)
def test_a_worker_ends_after_its_trials_after_its_study_and_after_a_time_without(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    listener = client()
    listener.submit(msgspec.structs.replace(SPEC, n_trials=5))

    def start_worker(name: str, *settings: str) -> Managed:
        worker = ["worker", *small_study(steps=1, step_s=0.0), f"worker.name={name}"]
        return bus.service(*worker, *settings)

    few = start_worker("few", "worker.max_trials=3", "worker.slots=2")
    assert few.wait(40) == 0
    assert {listener.next(trialbus.TrialStarted).trial for _ in range(3)} == {0, 1, 2}
    until_end = start_worker("until-end", "worker.until=finished", "worker.slots=2")
    assert until_end.wait(40) == 0
    assert listener.next(trialbus.StudyFinished).counts.complete == 5
    assert start_worker("late", "worker.until=finished").wait(40) == 0
    idle = start_worker("idle", "worker.idle_s=0.5")
    assert idle.wait(40) == 0
    assert "no trial for 0.5 s (worker.idle_s)" in idle.printed()
    assert listener.next(trialbus.RequestWithdrawn) is not None
