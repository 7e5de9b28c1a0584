"""Where the hub is: what names its address, in which order, and what an error says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

import trialbus
from trialbus.protocol.endpoint import ENDPOINT_VARIABLE
from trialbus.protocol.security import ClientKeys, KeyPair, create_keys, explain_silence
from trialbus_services.cli import inspect
from trialbus_services.cli.main import main
from trialbus_services.config import sections
from trialbus_services.config.composing import compose_config

TCP = "tcp://127.0.0.1:5999"
HINT = "a hub with keys does not answer a client without: set $TRIALBUS_KEY and $TRIALBUS_HUB_KEY"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    return tmp_path


def read_endpoint(*arguments: str) -> str:
    with compose_config(arguments) as composed:
        return sections.read_bus(composed.config).endpoint


def test_the_address_is_in_the_folder_of_the_bus_by_default(folder: Path) -> None:
    assert read_endpoint() == f"ipc://{folder}/.trialbus/hub.sock"
    assert read_endpoint("bus.dir=b") == f"ipc://{folder}/b/hub.sock"


def test_the_environment_comes_before_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, TCP)
    assert read_endpoint() == TCP
    assert read_endpoint("bus=curve", "bus.dir=b") == TCP
    monkeypatch.setenv(ENDPOINT_VARIABLE, "")
    assert read_endpoint() == f"ipc://{folder}/.trialbus/hub.sock"


def test_the_command_line_and_a_file_of_the_user_come_before_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, TCP)
    assert read_endpoint("bus.endpoint=tcp://127.0.0.1:1") == "tcp://127.0.0.1:1"
    (folder / "conf" / "bus").mkdir(parents=True)
    (folder / "conf" / "bus" / "lab.yaml").write_text(
        "defaults: [local, _self_]\nendpoint: tcp://127.0.0.1:2\n"
    )
    assert read_endpoint("--config-dir=conf", "bus=lab") == "tcp://127.0.0.1:2"


def test_an_address_that_cannot_be_one_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, "udp://x")
    with pytest.raises(trialbus.SpecError, match=r"^\$TRIALBUS_ENDPOINT: 'udp://x' is not ipc://"):
        read_endpoint()
    with pytest.raises(trialbus.SpecError, match=r"^bus.endpoint: 'udp://y' is not ipc://"):
        read_endpoint("bus.endpoint=udp://y")


@pytest.mark.parametrize(
    ("variable", "arguments", "expected"),
    [
        ("", (), "at 'ipc://{folder}/.trialbus/hub.sock' within 0.1 s"),
        (TCP, (), f"at $TRIALBUS_ENDPOINT='{TCP}' within 0.1 s"),
        ("", ("--endpoint", TCP), f"at --endpoint='{TCP}' within 0.1 s"),
        (TCP, (f"--endpoint={TCP}",), f"or correct --endpoint; {HINT}"),
    ],
    ids=["by default", "a variable", "an option", "an option beside the variable"],
)
def test_a_command_that_finds_no_hub_names_what_the_user_set(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.setattr(inspect, "_CONNECT_S", 0.1)
    monkeypatch.setenv(ENDPOINT_VARIABLE, variable)
    assert main(["status", *arguments]) == 1
    assert expected.format(folder=Path.cwd()) in capsys.readouterr().err


def test_a_client_of_a_program_names_the_variable_only_if_it_was_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, TCP)
    for endpoint, source in ((None, "$TRIALBUS_ENDPOINT"), ("tcp://127.0.0.1:5998", "")):
        with (
            trialbus.Link(endpoint) as link,
            pytest.raises(trialbus.HubUnavailableError) as error,
        ):
            link.wait_connected(0.01)
        assert error.value.source == source


def test_keys_are_mentioned_where_there_may_be_some(folder: Path) -> None:
    own_socket = f"ipc://{folder}/bus/hub.sock"
    assert explain_silence(own_socket, None) == ""
    assert explain_silence(TCP, None).startswith(HINT)
    create_keys(folder / "bus" / "keys", "hub", "service")
    assert explain_silence(own_socket, None).startswith(HINT)


def test_a_client_with_keys_is_told_which_key_to_look_at() -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    own = KeyPair(name="alice", public=public, secret=secret)
    assert explain_silence("ipc:///h.sock", ClientKeys(own=own, hub=public)) == (
        "a hub does not answer a client with wrong keys: it has to allow the key 'alice', and "
        "$TRIALBUS_HUB_KEY has to be its own"
    )
