"""A log that lost its tail while it was in use: it is said, and everything goes on."""

from __future__ import annotations

import trialbus
from support.evaluations import make_evaluation, read_steps
from support.processes import Bus
from trialbus.client.admin import hub_status
from trialbus.client.link import Link


def lose_tail(bus: Bus, *names: str) -> None:
    """Kill the hub, delete files of its log and start it again."""
    hub = bus.processes["hub"]
    hub.kill()
    for name in names:
        (bus.directory / "log" / name).unlink(missing_ok=True)
    hub.start()


def test_a_lost_tail_is_shown_and_subscribers_and_publishers_go_on(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher, Link(bus.endpoint) as link:
        for step in range(5):
            publisher.publish(make_evaluation(step))
        assert publisher.flush(20)
        hub_status(link)
        with trialbus.subscribe(start="earliest", endpoint=bus.endpoint) as inbox:
            assert read_steps(inbox, 5) == [0, 1, 2, 3, 4]
            lose_tail(bus, "events.db-wal", "events.db-shm")
            publisher.publish(make_evaluation(5))
            assert publisher.flush(30)
            assert read_steps(inbox, 1) == [5]
        status = hub_status(link)
    assert status.lost == 5
    assert "the events 0 to 4" in bus.processes["hub"].printed()
