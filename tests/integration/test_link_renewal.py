"""A link reaches the hub again after whatever else answered at the hub's address."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

import trialbus
from support.evaluations import make_evaluation
from support.processes import Bus
from support.zmtp import GREETING, make_ready
from trialbus.client import link as link_module
from trialbus.protocol import security


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_CHECK_S", 0.1)
    monkeypatch.setattr(link_module, "_RENEW_S", 0.5)


@contextlib.contextmanager
def impostor(bus: Bus, answer: bytes) -> Generator[trialbus.Link]:
    """A link that is connected to a program which answers with some bytes, and then ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(bus.endpoint.removeprefix("ipc://"))
        listener.listen()
        link = trialbus.Link(bus.endpoint)
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(0.5)
            connection.sendall(answer)
            while connection.recv(1000):
                pass
    with link:
        yield link


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(300),
        GREETING,
        GREETING + make_ready(b"ROUTER") + b"\xf7" * 50,
    ],
    ids=["another protocol", "zeros", "half a handshake", "damaged frame"],
)
def test_a_link_comes_back_after_bytes_that_are_not_of_the_protocol(
    bus: Bus, answer: bytes
) -> None:
    with impostor(bus, answer) as link:
        bus.hub()
        link.wait_connected(20)


def test_a_link_with_a_key_comes_back_after_a_hub_that_was_started_without_keys(bus: Bus) -> None:
    folder = bus.directory / "keys"
    security.create_keys(folder, "hub", "service")
    own = security.load_keys(security.create_keys(folder, "me", "service"))
    hub = bus.hub()
    keys = security.ClientKeys(own=own, hub=(folder / "hub.pub").read_text().strip())
    with trialbus.Link(bus.endpoint, keys=keys) as link:
        with pytest.raises(trialbus.HubUnavailableError):
            link.wait_connected(1.0)
        hub.stop()
        bus.hub("--keys", str(folder))
        link.wait_connected(20)


def test_a_link_is_let_in_when_its_key_is_put_on_the_list(bus: Bus) -> None:
    folder = bus.directory / "keys"
    security.create_keys(folder, "hub", "service")
    own = security.load_keys(security.create_keys(folder, "me", "service"))
    allowed = (folder / "allowed.json").read_text()
    (folder / "allowed.json").write_text("{}")
    bus.hub("--keys", str(folder))
    keys = security.ClientKeys(own=own, hub=(folder / "hub.pub").read_text().strip())
    with trialbus.Link(bus.endpoint, keys=keys) as link:
        with pytest.raises(trialbus.HubUnavailableError):
            link.wait_connected(1.5)
        (folder / "allowed.json").write_text(allowed)
        link.wait_connected(20)


def test_a_link_leaves_a_connection_on_which_nothing_answers(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_ANSWER_S", 1.0)
    hub = bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(make_evaluation(0))
        assert publisher.flush(20)
        hub.signal(signal.SIGSTOP)  # the kernel keeps the connection
        Path(bus.endpoint.removeprefix("ipc://")).unlink()
        other = bus.run("other", [*hub.command[:-1], str(bus.directory / "other")])
        publisher.publish(make_evaluation(1))
        assert publisher.flush(20)
        assert other.running
        hub.kill()
