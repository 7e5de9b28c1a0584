"""A training keeps its pace while there is no hub, and everything arrives when there is one."""

from __future__ import annotations

import pytest

from chaos import outage
from support.processes import Bus


@pytest.mark.timeout(180)
def test_a_training_does_not_notice_that_the_hub_is_away_and_nothing_of_it_is_lost(
    bus: Bus,
) -> None:
    outcome = outage.run(bus, 10)
    print(outcome)
    assert outcome.steps_away >= 500
    # No measure of speed: a report that waited for the hub would take as long as it is away.
    assert outcome.report_away_s < outcome.away_s / 5
    assert outcome.harmless
