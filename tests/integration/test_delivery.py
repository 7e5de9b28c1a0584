"""Every event arrives once and in order at every subscriber of the topic."""

from __future__ import annotations

import asyncio
import sys

import pytest

import trialbus
from support.evaluations import list_logged_steps, make_evaluation, read_steps
from support.processes import Bus
from support.until import until


def test_events_arrive_once_and_in_order_whatever_the_hub_goes_through(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as inbox,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        inbox.wait_ready()
        for round_ in range(5):
            for step in range(1000):
                publisher.publish(make_evaluation(round_ * 1000 + step))
            hub.restart()
        assert read_steps(inbox, 5000) == list(range(5000))
        publisher.publish(make_evaluation(5000))
        assert read_steps(inbox, 1) == [5000]


def test_what_is_published_before_a_hub_exists_arrives_when_there_is_one(bus: Bus) -> None:
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(100):
            publisher.publish(make_evaluation(step))
        assert not publisher.flush(0.0)
        bus.hub()
        assert publisher.flush(20)
    assert list_logged_steps(bus) == list(range(100))


@pytest.mark.parametrize(
    ("study", "trial", "expected"),
    [
        (None, None, {(s, t) for s in ("a", "b") for t in (1, 2)}),
        ("a", None, {("a", 1), ("a", 2)}),
        ("b", 2, {("b", 2)}),
    ],
)
def test_filters_by_study_and_trial(
    bus: Bus, study: str | None, trial: int | None, expected: set[tuple[str, int]]
) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for name in ("a", "b"):
            publisher.publish(trialbus.Stop(study=name))
            for number in (1, 2):
                publisher.publish(make_evaluation(0, name, number))
    found = trialbus.replay(
        trialbus.EvaluationComplete, study=study, trial=trial, endpoint=bus.endpoint
    )
    assert {(event.study, event.trial) for record in found if (event := record.event)} == expected  # type: ignore[union-attr]


async def test_an_async_loop_gets_what_a_plain_loop_gets(bus: Bus) -> None:
    bus.hub()
    async with trialbus.subscribe(start="earliest", endpoint=bus.endpoint) as inbox:
        with trialbus.Publisher(bus.endpoint) as publisher:
            for step in range(2000):
                publisher.publish(make_evaluation(step))
        found: list[int] = []
        async with asyncio.timeout(20):
            async for event in inbox:
                assert isinstance(event, trialbus.EvaluationComplete)
                found.append(event.step)
                if len(found) == 2000:
                    break
    assert found == list(range(2000))


def test_a_type_of_ones_own_travels_and_an_unknown_one_arrives_untouched(bus: Bus) -> None:
    @trialbus.register
    class GpuHot(trialbus.Event, frozen=True, kw_only=True, tag="x_gpu_hot"):
        celsius: float

    class Unheard(trialbus.Event, frozen=True, kw_only=True, tag="x_unheard"):
        value: int

    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(GpuHot(study="s", celsius=91.5))
        publisher.publish(Unheard(study="s", value=3))
    hot, unheard = (record.event for record in trialbus.replay(endpoint=bus.endpoint))
    assert isinstance(hot, GpuHot)
    assert hot.celsius == 91.5
    assert isinstance(unheard, trialbus.UnknownEvent)
    assert (unheard.type, unheard.data["value"]) == ("x_unheard", 3)


def test_a_subscriber_that_takes_its_time_misses_nothing_and_holds_up_nobody(bus: Bus) -> None:
    bus.hub()
    with (
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as slow,
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as quick,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        slow.wait_ready()
        quick.wait_ready()
        for step in range(20_000):  # many times what its buffers hold
            publisher.publish(make_evaluation(step))
        assert publisher.flush(20)
        assert read_steps(quick, 20_000) == list(range(20_000))
        assert read_steps(slow, 20_000) == list(range(20_000))


@pytest.mark.parametrize("loop", ["for", "async for"])
def test_a_loop_over_events_without_a_hub_says_once_that_it_waits_and_gets_the_events_then(
    bus: Bus, loop: str
) -> None:
    listener = (
        "import asyncio, trialbus\n"
        "async def main():\n"
        "    async for event in trialbus.subscribe('pause', start='earliest'):\n"
        "        return print(event)\n"
        "asyncio.run(main())\n"
    )
    if loop == "for":
        listener = (
            "import trialbus\n"
            "for event in trialbus.subscribe('pause', start='earliest'): print(event); break\n"
        )
    command = ["env", f"TRIALBUS_ENDPOINT={bus.endpoint}", sys.executable, "-c", listener]
    process = bus.run("listener", command)
    until(lambda: "no hub answers at" in process.printed(), 20)
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(trialbus.Pause(study="s"))
        assert publisher.flush(20)
    assert process.wait(20) == 0
    assert "Pause(" in process.printed()
    assert process.printed().count("no hub answers at") == 1
