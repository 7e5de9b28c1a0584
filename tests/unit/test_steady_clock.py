"""The optimizer's time goes on evenly, whoever sets the machine's clock."""

from __future__ import annotations

from trialbus_services.optimizer.steady_clock import SteadyClock


def test_a_machine_s_clock_that_is_set_does_not_move_the_time() -> None:
    wall, steady = [1000.0], [5.0]
    now = SteadyClock(lambda: wall[0], lambda: steady[0])
    wall[0] += 3600  # somebody sets the clock
    assert now() == 1000.0
    steady[0] += 2.5
    assert now() == 1002.5
