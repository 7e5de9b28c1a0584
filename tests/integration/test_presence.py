"""A killed, stopped or unplugged trainer is reported, and a trainer with a short outage is not."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import trialbus
from support.processes import Bus, Managed
from support.until import until
from trialbus.client.admin import hub_status

_TRAINER = """
import sys, time, trialbus
with trialbus.Presence(
    sys.argv[1], kind="trainer", ttl_s=float(sys.argv[2]), study="s", trial=4, attempt=1
) as presence:
    presence.wait_registered(30)
    print("registered", flush=True)
    while not presence.lost:
        time.sleep(0.02)
    print("lost", flush=True)
"""


class Cable:
    """A TCP connection to a hub on a socket file; unplugged, the peers get no notice."""

    def __init__(self, bus: Bus) -> None:
        self._path = bus.endpoint.removeprefix("ipc://")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._plugged = threading.Event()
        self._plugged.set()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def unplug(self) -> None:
        self._plugged.clear()

    def plug(self) -> None:
        self._plugged.set()

    def cut(self) -> None:
        """Unplug, and let both sides know."""
        self.unplug()
        self._hang_up()

    def close(self) -> None:
        self.plug()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._hang_up()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _hang_up(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):  # the other side was quicker
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            self._plugged.wait()
            inner = socket.socket(socket.AF_UNIX)
            inner.connect(self._path)
            self._ends += [outer, inner]
            for source, target in ((outer, inner), (inner, outer)):
                thread = threading.Thread(target=self._pass_on, args=(source, target))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._plugged.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable(bus: Bus) -> Iterator[Cable]:
    bus.hub()
    with trialbus.Link(bus.endpoint) as link:
        link.wait_connected(20)
    cable = Cable(bus)
    try:
        yield cable
    finally:
        cable.close()


def start_trainer(bus: Bus, cable: Cable, ttl_s: float) -> Managed:
    command = [sys.executable, "-c", _TRAINER, cable.endpoint, str(ttl_s)]
    trainer = bus.run("trainer", command)
    until(lambda: "registered" in trainer.printed(), 30)
    return trainer


def silence(link: trialbus.Link) -> float:
    """Seconds since the last message of the only session."""
    sessions = hub_status(link).sessions
    assert sessions, "the session was declared lost"
    return sessions[0].silent_s


def killed(trainer: Managed, _cable: Cable) -> None:
    trainer.kill()


def stopped(trainer: Managed, _cable: Cable) -> None:
    trainer.signal(signal.SIGSTOP)


def unplugged(_trainer: Managed, cable: Cable) -> None:
    cable.unplug()


@pytest.mark.parametrize("end", [killed, stopped, unplugged])
def test_a_trainer_that_is_gone_is_reported_once_and_after_its_time_to_live(
    bus: Bus, cable: Cable, end: Callable[[Managed, Cable], None]
) -> None:
    ttl_s = 1.5
    with (
        trialbus.Link(bus.endpoint) as link,
        trialbus.subscribe(trialbus.TrainerLost, link=link) as inbox,
    ):
        inbox.wait_ready()
        trainer = start_trainer(bus, cable, ttl_s)
        end(trainer, cable)
        ended_at = time.time()
        event = inbox.next(ttl_s + 10)
        assert event is not None
        assert (event.kind, event.study, event.trial, event.attempt) == ("trainer", "s", 4, 1)
        # By the clock of the hub, which is ours: it was given all of its time and not much more.
        assert event.last_seen < ended_at + 0.5
        assert event.at - event.last_seen >= ttl_s
        assert event.at - event.last_seen < ttl_s + 5
        assert hub_status(link).sessions == []
        # Back again, it is told so, and not reported a second time.
        cable.plug()
        if trainer.running:
            trainer.signal(signal.SIGCONT)
            until(lambda: "lost" in trainer.printed(), 30)
            assert trainer.wait(30) == 0
        assert hub_status(link).counters["sessions_lost"] == 1


@pytest.mark.parametrize("how", ["unplug", "cut"])
def test_a_trainer_that_lost_its_connection_for_less_than_that_is_not_reported(
    bus: Bus, cable: Cable, how: str
) -> None:
    ttl_s = 6.0  # signs of life every 2 s
    with trialbus.Link(bus.endpoint) as link:
        trainer = start_trainer(bus, cable, ttl_s)
        until(lambda: silence(link) < 0.5, 10, "a sign of life")
        if how == "cut":
            cable.cut()
        else:
            cable.unplug()
        until(lambda: silence(link) > ttl_s / 2, 10, "a silence")
        cable.plug()
        until(lambda: silence(link) < 0.5, 10, "the next sign of life")
        assert "lost" not in trainer.printed()
        assert "sessions_lost" not in hub_status(link).counters
        assert list(trialbus.replay(trialbus.TrainerLost, link=link)) == []


def test_a_registered_session_that_falls_silent_is_reported_lost_and_one_that_says_goodbye_is_not(
    bus: Bus,
) -> None:
    bus.hub()
    script = (
        "import sys, time, trialbus\n"
        "p = trialbus.Presence(sys.argv[1], kind='trainer', ttl_s=1.0, study='s', trial=4,"
        " attempt=1)\n"
        "p.wait_registered(10); print('ready', flush=True); time.sleep(60)\n"
    )
    trainer = bus.run("trainer", [sys.executable, "-c", script, bus.endpoint])
    with (
        trialbus.Link(bus.endpoint) as link,
        trialbus.subscribe(trialbus.TrainerLost, link=link) as inbox,
    ):
        inbox.wait_ready()
        polite = trialbus.Presence(bus.endpoint, kind="trainer", ttl_s=1.0, study="s", trial=5)
        polite.wait_registered(10)
        polite.close()
        until(lambda: "ready" in trainer.printed())
        trainer.signal(signal.SIGSTOP)
        event = inbox.next(10)
        assert isinstance(event, trialbus.TrainerLost)
        assert (event.kind, event.study, event.trial, event.attempt) == ("trainer", "s", 4, 1)
        # Neither session is left that could be reported later.
        assert hub_status(link).sessions == []
        assert hub_status(link).counters["sessions_lost"] == 1
        trainer.signal(signal.SIGCONT)


def test_sessions_survive_a_restart_of_the_hub(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.subscribe(endpoint=bus.endpoint) as inbox,
        trialbus.Presence(bus.endpoint, kind="trainer", ttl_s=2.0) as presence,
        trialbus.Link(bus.endpoint) as link,
        trialbus.Publisher(link=link) as publisher,
    ):
        inbox.wait_ready()
        presence.wait_registered(10)
        hub.restart()
        until(lambda: hub_status(link).sessions[0].confirmed, describe="a heartbeat")
        publisher.publish(trialbus.Stop(study="marker"))
        assert isinstance(inbox.next(20), trialbus.Stop)
        assert [s.session for s in hub_status(link).sessions] == [presence.session]
        assert not presence.lost


def test_a_hub_that_stood_still_declares_nobody_lost(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.Link(bus.endpoint) as link,
        trialbus.subscribe(link=link) as inbox,
        trialbus.Presence(bus.endpoint, kind="trainer", ttl_s=1.0) as presence,
        trialbus.Publisher(link=link) as publisher,
    ):
        inbox.wait_ready()
        presence.wait_registered(10)
        hub.signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        until(lambda: time.monotonic() > stopped_at + 2.5, describe="more than the time-to-live")
        hub.signal(signal.SIGCONT)
        until(lambda: silence(link) < 0.5, describe="a heartbeat after the stop")
        publisher.publish(trialbus.Stop(study="marker"))
        assert isinstance(inbox.next(20), trialbus.Stop)
        assert not presence.lost
