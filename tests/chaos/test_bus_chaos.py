"""Every event that was accepted reaches every subscriber exactly once, whatever is killed."""

from __future__ import annotations

import pytest

from chaos.bus_chaos import Chaos
from support.processes import Bus


@pytest.mark.timeout(180)
def test_no_event_is_lost_or_repeated_under_kills_and_pauses(bus: Bus) -> None:
    outcome = Chaos(bus, seed=1).run(60)
    print(outcome)
    assert outcome.accepted > 1000
    assert outcome.is_harmless


@pytest.mark.timeout(120)
def test_the_control_without_adoption_loses_events(bus: Bus) -> None:
    outcome = Chaos(bus, seed=2, adoption=False).run(25)
    print(outcome)
    assert outcome.missing > 0


@pytest.mark.timeout(120)
def test_the_control_without_deduplication_repeats_events(bus: Bus) -> None:
    outcome = Chaos(bus, seed=3, deduplication=False).run(25)
    print(outcome)
    assert outcome.repeated > 0
