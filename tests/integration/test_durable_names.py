"""A durable name continues at its committed offset."""

from __future__ import annotations

import trialbus
from support.evaluations import evaluation, read_steps
from support.processes import Bus


def test_a_durable_name_goes_on_where_it_committed(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(10):
            publisher.publish(evaluation(step))
    with trialbus.subscribe(
        name="mine", start="earliest", autocommit=False, endpoint=bus.endpoint
    ) as inbox:
        assert read_steps(inbox, 4) == [0, 1, 2, 3]
        assert inbox.commit(wait_s=5)
        assert read_steps(inbox, 3) == [4, 5, 6]
    bus.processes["hub"].restart()
    with trialbus.subscribe(
        name="mine", start="now", autocommit=False, endpoint=bus.endpoint
    ) as inbox:
        assert read_steps(inbox, 6) == [4, 5, 6, 7, 8, 9]


def test_a_durable_name_that_is_new_misses_nothing_from_its_first_moment_on(bus: Bus) -> None:
    bus.hub()
    with trialbus.subscribe(name="new", endpoint=bus.endpoint, autocommit=False) as inbox:
        inbox.wait_ready()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(evaluation(7))
    with trialbus.subscribe(name="new", endpoint=bus.endpoint) as inbox:
        assert read_steps(inbox, 1) == [7]


def test_a_loop_over_a_durable_name_commits_by_itself(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(5):
            publisher.publish(evaluation(step))
    with trialbus.subscribe(name="loop", start="earliest", endpoint=bus.endpoint) as inbox:
        for event in inbox:
            if isinstance(event, trialbus.EvaluationComplete) and event.step == 2:
                break
    with trialbus.subscribe(name="loop", endpoint=bus.endpoint) as inbox:
        assert read_steps(inbox, 2) == [3, 4]
