"""Storages behind a server: Optuna's gRPC storage, and Redis."""

from __future__ import annotations

import shutil
import socket
import sys
from importlib.util import find_spec

import optuna
import pytest

import trialbus
from support.client import SPEC, Client
from support.processes import Bus
from support.requirements import skip_for_lack
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


def has_ended(study: optuna.Study, number: int) -> bool:
    return study.trials[number].state.is_finished()


def start_redis(bus: Bus) -> str:
    """Start a Redis server and return its URL."""
    server = shutil.which("redis-server")
    if server is None or find_spec("redis") is None:
        skip_for_lack("there is no redis-server, or no package redis")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    redis = bus.run("redis", [server, "--port", str(port), "--save", "", "--dir", "."])
    until(lambda: "Ready to accept connections" in redis.printed(), 20, "Redis")
    return f"redis://127.0.0.1:{port}"


def test_a_study_in_redis_goes_on_after_a_kill_of_the_optimizer(bus: Bus) -> None:
    url = start_redis(bus)
    bus.hub()
    optimizer = bus.service("optimizer", f"storage.url={url}")
    client = Client(bus)
    client.submit()
    handed_out = [client.run_one() for _ in range(3)]
    running = client.ask()
    client.report(running, 0, loss=2.0)
    study = optuna.load_study(study_name=SPEC.name, storage=open_storage(url))
    until(lambda: has_ended(study, 2), 20, "the end of trial 2")
    optimizer.kill()
    client.report(running, 1, loss=1.0)
    client.finish(running)
    optimizer.start()
    handed_out += [running, *(client.run_one() for _ in range(4))]
    end = client.next(trialbus.StudyFinished)
    client.close()
    assert (end.reason, end.counts.complete) == ("exhausted", 8)
    assert [trial.params for trial in study.trials] == [trial.params for trial in handed_out]
    assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert study.trials[3].intermediate_values == {0: 2.0, 1: 1.0}
    assert study.best_trial.number == end.best_trials[0].number


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
