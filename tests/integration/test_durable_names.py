"""A durable name continues at the committed offset."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

import trialbus
from support.evaluations import make_evaluation, read_steps
from support.processes import Bus
from trialbus.client.admin import forget_name, hub_status
from trialbus.client.link import Link


def test_a_durable_name_goes_on_where_it_committed(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(10):
            publisher.publish(make_evaluation(step))
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
        publisher.publish(make_evaluation(7))
    with trialbus.subscribe(name="new", endpoint=bus.endpoint) as inbox:
        assert read_steps(inbox, 1) == [7]


def test_a_loop_over_a_durable_name_commits_by_itself(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(5):
            publisher.publish(make_evaluation(step))
    with trialbus.subscribe(name="loop", start="earliest", endpoint=bus.endpoint) as inbox:
        for event in inbox:
            if isinstance(event, trialbus.EvaluationComplete) and event.step == 2:
                break
    with trialbus.subscribe(name="loop", endpoint=bus.endpoint) as inbox:
        assert read_steps(inbox, 2) == [3, 4]


def publish_steps(bus: Bus, count: int) -> None:
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(count):
            publisher.publish(make_evaluation(step))


def read_on(bus: Bus, count: int) -> list[int]:
    """Return the next steps under the durable name, and commit none."""
    with trialbus.subscribe(
        trialbus.EvaluationComplete, name="mine", autocommit=False, endpoint=bus.endpoint
    ) as inbox:
        return read_steps(inbox, count)


def test_a_loop_left_by_break_commits_every_event_before_the_last(bus: Bus) -> None:
    bus.hub()
    publish_steps(bus, 5)
    threads = threading.active_count()
    for event in trialbus.subscribe(
        trialbus.EvaluationComplete, name="mine", start="earliest", endpoint=bus.endpoint
    ):
        if event.step == 2:
            break
    assert threading.active_count() == threads
    assert read_on(bus, 3) == [2, 3, 4]


def test_a_loop_that_is_left_and_entered_again_misses_and_repeats_nothing(bus: Bus) -> None:
    bus.hub()
    publish_steps(bus, 6)
    steps: list[int] = []
    with trialbus.subscribe(
        trialbus.EvaluationComplete, name="mine", start="earliest", endpoint=bus.endpoint
    ) as inbox:
        for n_steps in (2, 4):
            for event in inbox:
                steps.append(event.step)
                if len(steps) == n_steps:
                    break
    assert steps == [0, 1, 2, 3]
    assert read_on(bus, 2) == [4, 5]


def test_an_asynchronous_loop_left_by_break_commits_every_event_before_the_last(bus: Bus) -> None:
    async def read() -> None:
        async for event in trialbus.subscribe(
            trialbus.EvaluationComplete, name="mine", start="earliest", endpoint=bus.endpoint
        ):
            if event.step == 2:
                break

    bus.hub()
    publish_steps(bus, 5)
    asyncio.run(read())
    assert read_on(bus, 3) == [2, 3, 4]


def test_an_event_whose_processing_failed_is_delivered_again(bus: Bus) -> None:
    bus.hub()
    publish_steps(bus, 5)

    def read() -> None:
        with trialbus.subscribe(
            trialbus.EvaluationComplete, name="mine", start="earliest", endpoint=bus.endpoint
        ) as inbox:
            for event in inbox:
                _ = 1 / (event.step - 2)

    with pytest.raises(ZeroDivisionError):
        read()
    assert read_on(bus, 3) == [2, 3, 4]


def test_a_subscriber_that_is_garbage_commits_every_event_before_the_last(bus: Bus) -> None:
    bus.hub()
    publish_steps(bus, 5)
    with Link(bus.endpoint) as link:
        inbox = trialbus.subscribe(
            trialbus.EvaluationComplete, name="mine", start="earliest", link=link
        )
        assert read_steps(inbox, 3) == [0, 1, 2]
        del inbox
    assert read_on(bus, 3) == [2, 3, 4]


def test_a_subscriber_commits_at_the_end_of_the_process(bus: Bus) -> None:
    bus.hub()
    publish_steps(bus, 5)
    script = (
        "import trialbus\n"
        "inbox = trialbus.subscribe('evaluation_complete', name='mine', start='earliest')\n"
        "assert [inbox.next().step for _ in range(3)] == [0, 1, 2]\n"
    )
    environment = os.environ | {"TRIALBUS_ENDPOINT": bus.endpoint}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    assert read_on(bus, 3) == [2, 3, 4]


def test_a_forked_child_that_drops_its_parent_s_subscriber_commits_nothing(bus: Bus) -> None:
    bus.hub()
    publish_steps(bus, 5)
    with trialbus.subscribe(
        trialbus.EvaluationComplete, name="mine", start="earliest", endpoint=bus.endpoint
    ) as inbox:
        assert read_steps(inbox, 2) == [0, 1]
        child = os.fork()
        if child == 0:
            inbox.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert read_steps(inbox, 1) == [2]


def test_another_filter_under_a_durable_name_is_refused_with_a_way_out(bus: Bus) -> None:
    bus.hub()
    with trialbus.subscribe(name="mine", study="a", endpoint=bus.endpoint) as inbox:
        inbox.wait_ready()
    bus.processes["hub"].restart()
    with (
        trialbus.subscribe(name="mine", study="b", endpoint=bus.endpoint) as inbox,
        pytest.raises(trialbus.HubRefusedError, match="trialbus forget --name mine"),
    ):
        inbox.wait_ready()
    with Link(bus.endpoint) as link:
        forget_name(link, "mine")
    with trialbus.subscribe(name="mine", study="b", endpoint=bus.endpoint) as inbox:
        inbox.wait_ready()


def test_a_subscriber_takes_over_from_the_one_before_under_its_name(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(4):
            publisher.publish(make_evaluation(step))
    with trialbus.subscribe(
        name="mine", start="earliest", autocommit=False, endpoint=bus.endpoint
    ) as first:
        assert read_steps(first, 2) == [0, 1]
        with trialbus.subscribe(name="mine", autocommit=False, endpoint=bus.endpoint) as second:
            assert read_steps(second, 4) == [0, 1, 2, 3]
            assert second.commit(wait_s=5)
            assert not first.commit(wait_s=5)
            read_steps(first, 2)
            with pytest.raises(trialbus.HubRefusedError, match="took over"):
                first.next(5)


@pytest.mark.parametrize("offset", [-1, 4, 1_000_000, True, 2.0, "2"], ids=repr)
def test_an_offset_behind_the_events_that_arrived_is_not_committed(bus: Bus, offset: Any) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(3):
            publisher.publish(make_evaluation(step))
    with (
        trialbus.Link(bus.endpoint) as link,
        trialbus.subscribe(name="mine", start="earliest", link=link, autocommit=False) as inbox,
    ):
        assert read_steps(inbox, 3) == [0, 1, 2]
        with pytest.raises(trialbus.SpecError, match="expected an offset up to 3"):
            inbox.commit(offset)
        assert inbox.commit(2, wait_s=5)
        status = hub_status(link)
        assert (status.lost, status.end, status.durable["mine"].offset) == (0, 3, 2)
