"""A training keeps the same pace without a hub, and all reports arrive at the next hub."""

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
    # A report that waited for the hub would take as long as the outage.
    assert outcome.report_away_s < outcome.away_s / 5
    assert outcome.is_harmless
