"""No guarantee breaks in a simulation, which finds every hub that breaks one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.run import run, simulate
from trialbus.hub.hub import Hub
from trialbus.protocol import frames

_TESTS = Path(__file__).parents[1]


class HastyHub(Hub):
    """A control: acknowledges events before they are on the disk."""

    def _commit(self) -> list[frames.Record]:
        for peer, secret in self._acks:
            last = self._change.publishers.get(frames.derive_publisher_id(secret))
            if last is not None:
                self._router.send(peer, frames.Ack(secret, last))
        return super()._commit()


class ForgetfulHub(Hub):
    """A control: takes every event for a new one."""

    def _handle_publish(self, peer: bytes, message: frames.Publish) -> None:
        publisher = frames.derive_publisher_id(message.publisher)
        self.log.publishers.pop(publisher, None)
        self._change.publishers[publisher] = message.first - 1
        super()._handle_publish(peer, message)


class DeafHub(Hub):
    """A control: never ends a session."""

    def _expire_sessions(self) -> None: ...


def test_no_guarantee_breaks_under_faults_of_every_kind() -> None:
    outcome = run(seed=1, seconds=5.0)
    print(outcome)
    assert outcome.violations == []
    assert outcome.faults > 200
    assert len(outcome.by_fault) >= 15


@pytest.mark.parametrize(
    ("hub_class", "description"),
    [
        (HastyHub, "was acknowledged, and the log has"),
        (ForgetfulHub, "follows its event"),
        (DeafHub, "sessions without an owner"),
    ],
)
def test_a_hub_that_breaks_a_guarantee_is_found_and_the_seed_repeats_the_violation(
    hub_class: type[Hub], description: str
) -> None:
    for seed in range(10):
        _, violation = simulate(seed, hub_class)
        if violation is not None:
            assert description in violation
            assert simulate(seed, hub_class)[1] == violation
            return
    pytest.fail("no violation")


def test_a_study_whose_dead_workers_nobody_reports_is_found() -> None:
    for seed in range(2, 32, 3):
        _, violation = simulate(seed, DeafHub)
        if violation is not None:
            assert "does not end" in violation
            return
    pytest.fail("no violation")


def test_equal_seeds_give_equal_simulations_in_any_process() -> None:
    program = (
        "from simulation.run import simulate; print([simulate(s)[0].world.digest for s in (7, 8)])"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(_TESTS), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert digests == {f"{[simulate(seed)[0].world.digest for seed in (7, 8)]}\n"}
