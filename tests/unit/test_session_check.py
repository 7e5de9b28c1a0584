"""The optimizer finds requesters that the hub does not know."""

from __future__ import annotations

from typing import Any

import pytest

from support.simulated_bus import Clock, SimulatedBus
from trialbus.client.part_driver import PartDriver
from trialbus.messages import events
from trialbus.protocol import frames
from trialbus.protocol.status import HubStatus, SessionStatus
from trialbus_services.optimizer.session_check import SessionCheck


class Hub:
    """A driver of the check, with a hub that answers with the sessions of a test."""

    def __init__(self, clock: Clock) -> None:
        self.driver = PartDriver("ipc://x")
        self.check = SessionCheck(self.driver, clock=clock)
        self.driver.handle(frames.Welcome(frames.PROTOCOL, "log", 0))
        self.n_asked = 0

    def answer(self, *sessions: str) -> None:
        """Answer the questions that the check sends."""
        asked: list[Any] = []
        self.driver.work(lambda frame: asked.append(frame) or True, 0.0)
        self.n_asked += len(asked)
        for frame in asked:
            self.driver.handle(frames.Status(frame.request, make_status(*sessions)))


def make_status(*sessions: str) -> HubStatus:
    rows = [
        SessionStatus(
            session=session,
            kind="worker",
            name="",
            study="",
            trial=None,
            info={},
            ttl_s=1.0,
            silent_s=0.0,
            confirmed=True,
        )
        for session in sessions
    ]
    return HubStatus(
        log_id="log", end=0, endpoint="ipc://x", path="", pid=1, up_s=1.0, sessions=rows
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_session_is_unknown_after_two_answers_that_lack_it(clock: Clock) -> None:
    hub = Hub(clock)
    assert hub.check.is_due
    for expected in (frozenset[str](), frozenset({"nobody"})):
        hub.check.ask(["known", "nobody"])
        hub.answer("known", "another")
        assert hub.check.take_unknown() == expected
        assert not hub.check.is_due
        clock.now += 10.0
        assert hub.check.is_due
    assert hub.check.take_unknown() == frozenset()


def test_a_session_that_is_known_in_between_stays_known(clock: Clock) -> None:
    hub = Hub(clock)
    for sessions in ((), ("late",), ()):
        hub.check.ask(["late"])
        hub.answer(*sessions)
    assert hub.check.take_unknown() == frozenset()


def test_nothing_is_asked_while_nobody_requests(clock: Clock) -> None:
    hub = Hub(clock)
    hub.check.ask([])
    hub.answer()
    assert hub.n_asked == 0


class Unknown:
    """A check that finds the sessions of a test, and keeps what it was asked."""

    def __init__(self) -> None:
        self.is_due = True
        self.asked: list[str] = []
        self.unknown: set[str] = set()

    def ask(self, sessions: Any) -> None:
        self.asked = sorted(sessions)

    def take_unknown(self) -> set[str]:
        unknown, self.unknown = self.unknown, set()
        return unknown


def test_requests_and_trials_of_an_unknown_session_are_void() -> None:
    check = Unknown()
    bus = SimulatedBus(requesters=check)
    bus.submit(n_trials=1)
    first = bus.request("r1", session="nobody")
    bus.turn(events.TrialRequested(study="s", request="r2", session="alive"))
    assert check.asked == ["alive", "nobody"]
    check.unknown = {"nobody"}
    bus.turn()
    assert [event.session for event in bus.log.select(events.TrainerLost)] == ["nobody"]
    again = bus.log.select(events.TrialAssigned)[-1]
    assert (again.trial, again.attempt, again.session) == (first.trial, 1, "alive")
    assert check.asked == ["alive"]
    bus.loop.close(20)
