"""A subscriber that takes a second over each event, next to a fast subscriber."""

from __future__ import annotations

import sys

import trialbus
from support.processes import Bus
from support.until import until

_EVENTS = 20_000
_NAME = "slow"

# What it prints it has committed; terminated, it ends after the event at hand.
_SLOW = """
import signal, sys, threading, time, trialbus
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
with trialbus.subscribe(
    trialbus.EvaluationComplete, name=sys.argv[2], autocommit=False, endpoint=sys.argv[1]
) as inbox:
    inbox.wait_ready(30)
    print("ready", flush=True)
    while not stopping.is_set():
        event = inbox.next(0.1)
        if event is not None:
            time.sleep(1.0)  # the work
            assert inbox.commit(wait_s=30)
            print(event.step, flush=True)
"""


def evaluation(step: int) -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(study="s", trial=0, step=step, metrics={"loss": 0.5})


def taken(inbox: trialbus.Subscriber[trialbus.EvaluationComplete], count: int) -> list[int]:
    steps: list[int] = []
    while len(steps) < count and (event := inbox.next(30)) is not None:
        steps.append(event.step)
    return steps


def test_a_second_for_each_event_holds_up_nobody_and_goes_on_later_without_a_gap(bus: Bus) -> None:
    bus.hub()
    slow = bus.run("slow", [sys.executable, "-c", _SLOW, bus.endpoint, _NAME])
    until(lambda: "ready" in slow.printed(), 30)
    with (
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as quick,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        quick.wait_ready()
        for step in range(_EVENTS):
            publisher.publish(evaluation(step))
        assert taken(quick, _EVENTS) == list(range(_EVENTS))
    # No measure of speed: whoever waits for the slow one is there after five hours.
    assert len(slow.printed().split()) - 1 < _EVENTS / 500
    until(lambda: len(slow.printed().split()) - 1 >= 6, 60, "six events of the slow one")
    assert slow.stop(30) == 0
    handled = [int(step) for step in slow.printed().split()[1:]]
    assert handled == list(range(len(handled)))
    with (
        trialbus.subscribe(
            trialbus.EvaluationComplete, name=_NAME, endpoint=bus.endpoint
        ) as resumed,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        publisher.publish(evaluation(_EVENTS))  # ends what is to be read
        left = taken(resumed, _EVENTS + 1 - len(handled))
        assert left == list(range(len(handled), _EVENTS + 1))
