"""The database equals the published events, however often the optimizer is killed."""

from __future__ import annotations

import pytest

from chaos import optimizer_chaos
from support.processes import Bus


@pytest.mark.timeout(180)
def test_no_trial_or_evaluation_is_lost_while_the_optimizer_is_killed(bus: Bus) -> None:
    outcome = optimizer_chaos.run(bus, kills=6, seed=1)
    print(outcome)
    assert outcome.kills == 6
    assert outcome.pruned > 0
    assert outcome.is_harmless, outcome
