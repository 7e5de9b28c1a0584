"""Sessions live as long as heartbeats arrive, and an end is announced once."""

from __future__ import annotations

import msgspec
import pytest

from trialbus.hub.sessions import Sessions
from trialbus.protocol import limits
from trialbus.protocol.frames import Hello


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def hello(
    session: str, ttl_s: float = 2.0, *, kind: str = "trainer", exclusive: bool = False
) -> Hello:
    return Hello(session, kind, "n", int(ttl_s * 1000), study="s", trial=3, exclusive=exclusive)


def register(sessions: Sessions, hello: Hello, peer: bytes = b"peer") -> str | None:
    """Register a session like the hub, unless there is a conflict."""
    reason = sessions.find_conflict(hello) or sessions.find_exceeded_limit(hello.session, peer)
    if reason is None:
        sessions.register(hello, peer)
    return reason


def pass_time(sessions: Sessions, clock: Clock, seconds: float) -> list[str]:
    """Let time pass in the hub's ticks and return the sessions that were lost."""
    lost: list[str] = []
    for _ in range(round(seconds / 0.25)):
        clock.now += 0.25
        lost += [event.session for event in sessions.expire()]
    return lost


def test_a_silent_session_is_lost_once_and_for_good() -> None:
    clock = Clock()
    sessions = Sessions({}, clock, wall_clock=lambda: 7.0)
    assert register(sessions, hello("a")) is None
    assert pass_time(sessions, clock, 2.0) == []
    clock.now += 0.25
    (event,) = sessions.expire()
    assert (event.session, event.study, event.trial, event.last_seen) == ("a", "s", 3, 7.0)
    assert sessions.is_lost("a")
    assert not sessions.ping("a", b"peer")
    assert pass_time(sessions, clock, 10.0) == []


def test_a_heartbeat_keeps_a_session_alive() -> None:
    clock = Clock()
    sessions = Sessions({}, clock)
    register(sessions, hello("a"))
    register(sessions, hello("b"))
    for _ in range(5):
        assert pass_time(sessions, clock, 1.0) in ([], ["b"])
        assert sessions.ping("a", b"peer")
    assert [status.session for status in sessions.describe()] == ["a"]


def test_a_session_that_says_goodbye_is_not_lost() -> None:
    clock = Clock()
    sessions = Sessions({}, clock)
    register(sessions, hello("a"))
    assert sessions.end("a")
    assert not sessions.end("a")
    assert pass_time(sessions, clock, 10.0) == []
    assert not sessions.is_lost("a")


def test_the_time_in_which_the_hub_stood_still_does_not_count() -> None:
    clock = Clock()
    sessions = Sessions({}, clock)
    register(sessions, hello("a"))
    pass_time(sessions, clock, 1.0)
    clock.now += 60  # a stopped process, a laptop's lid
    assert list(sessions.expire()) == []
    assert pass_time(sessions, clock, 1.0) == []
    assert pass_time(sessions, clock, 0.25) == ["a"]


def test_sessions_of_an_earlier_hub_get_their_whole_time_to_live() -> None:
    clock = Clock()
    sessions = Sessions({"a": hello("a"), "b": hello("b")}, clock)
    assert not any(status.confirmed for status in sessions.describe())
    pass_time(sessions, clock, 1.0)
    assert sessions.ping("a", b"peer")
    assert pass_time(sessions, clock, 1.25) == ["b"]
    assert [status.confirmed for status in sessions.describe()] == [True]


def test_the_refusal_of_a_second_exclusive_session_names_host_and_pid_and_no_more() -> None:
    info = {"host": "h", "pid": "7", "decision": "{'p50_s': 0.001}", "storage": "sqlite:///x"}
    sessions = Sessions({})
    owner = hello("a", kind="optimizer", exclusive=True)
    assert register(sessions, msgspec.structs.replace(owner, info=info)) is None
    refusal = register(sessions, hello("b", kind="optimizer", exclusive=True))
    assert refusal == "optimizer 'n' is already registered (host h, pid 7)"


def test_an_exclusive_kind_and_name_belongs_to_one_live_session() -> None:
    clock = Clock()
    sessions = Sessions({}, clock)
    assert register(sessions, hello("a", kind="optimizer", exclusive=True)) is None
    refusal = register(sessions, hello("b", kind="optimizer", exclusive=True))
    assert refusal is not None
    assert "optimizer 'n' is already registered" in refusal
    assert register(sessions, hello("a", kind="optimizer", exclusive=True)) is None
    assert register(sessions, hello("c", kind="reporter", exclusive=True)) is None
    sessions.end("a")
    assert register(sessions, hello("b", kind="optimizer", exclusive=True)) is None


def test_the_sessions_of_one_connection_and_of_all_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SESSIONS_PER_CONNECTION", 2)
    monkeypatch.setattr(limits, "SESSIONS", 3)
    sessions = Sessions({})
    assert register(sessions, hello("a"), b"x") is None
    assert register(sessions, hello("b"), b"x") is None
    assert register(sessions, hello("c"), b"x") == "more than 2 sessions of one connection"
    assert register(sessions, hello("b"), b"x") is None  # a session that is known
    assert register(sessions, hello("c"), b"y") is None
    assert register(sessions, hello("d"), b"y") == "more than 3 sessions of all connections"
    assert sessions.end("a")
    assert register(sessions, hello("d"), b"x") is None


def test_a_session_counts_for_the_connection_that_it_comes_back_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SESSIONS_PER_CONNECTION", 1)
    sessions = Sessions({"a": hello("a"), "b": hello("b"), "c": hello("c")})
    for session in "abc":  # of an earlier hub; never refused
        assert sessions.ping(session, b"new")
    assert register(sessions, hello("d"), b"new") is not None
    for session in "ab":
        assert sessions.ping(session, b"newer")
    assert sessions.end("c")
    assert register(sessions, hello("d"), b"new") is None


def test_the_time_to_live_of_a_session_of_an_earlier_version_is_cut() -> None:
    sessions = Sessions({"a": hello("a", ttl_s=1e9)})
    assert [status.ttl_s for status in sessions.describe()] == [86_400.0]
