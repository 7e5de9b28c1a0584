"""Storages behind a server: Optuna's gRPC storage, and Redis."""

from __future__ import annotations

import sys

import optuna
import pytest

from support.client import SPEC, Client
from support.processes import Bus
from support.until import until
from trialbus.errors import SpecError
from trialbus_services.optimizer import remote_storage
from trialbus_services.optimizer.storage import check_url, open_storage

_SERVER = """\
import socket, sys
import optuna
from optuna.storages import RDBStorage, run_grpc_proxy_server
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
print(port, flush=True)
storage = RDBStorage(f"sqlite:///{sys.argv[1]}/studies.db")
run_grpc_proxy_server(storage, host="127.0.0.1", port=port)
"""


def test_a_study_is_recorded_through_optunas_grpc_storage(bus: Bus) -> None:
    server = bus.run("server", [sys.executable, "-c", _SERVER, str(bus.directory)])
    port = until(lambda: server.printed().strip().partition("\n")[0], 30)
    bus.hub()
    bus.service("optimizer", f"storage.url=grpc://127.0.0.1:{port}")
    client = Client(bus)
    client.submit()
    trial = client.run_one()
    client.close()
    storage = open_storage(f"grpc://127.0.0.1:{port}")

    def read() -> list[optuna.trial.FrozenTrial]:
        study = optuna.load_study(study_name=SPEC.name, storage=storage)
        return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))

    (recorded,) = until(read, 20)
    assert recorded.params == trial.params
    assert list(recorded.intermediate_values) == [0, 1, 2]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("grpc://", "expected grpc://<host>:<port>"),
        ("grpc://host", "expected grpc://<host>:<port>"),
        ("grpc://host:x", "expected grpc://<host>:<port>"),
        ("redis://", "expected redis://<host>:<port>"),
    ],
)
def test_an_address_that_is_incomplete_is_refused(url: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        check_url(url)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(remote_storage, "find_spec", find_nothing)
    with pytest.raises(SpecError, match=r"needs the package 'redis' \(pip install redis\)"):
        check_url("redis://user:secret@host:6379")


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_storage, "_ANSWER_S", 0.5)
    with pytest.raises(SpecError, match="expected a server that answers"):
        open_storage("grpc://127.0.0.1:1")
