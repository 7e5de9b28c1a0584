"""Benchmarks of other tools for comparison: Optuna's report and should_prune, Redis Streams."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from benchmarks.roles import make_event

NO_GRPC = "the Python packages grpcio and protobuf are not installed"

_BATCH = 256


def measure_optuna_report_us(storage: str, reports: int) -> tuple[float, float]:
    """Return p50 and p99, in microseconds, of report and should_prune of a single client."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, open_address(storage, Path(folder)) as address:
        study = optuna.create_study(
            storage=open_storage(address), pruner=optuna.pruners.MedianPruner()
        )
        trial = study.ask()
        costs: list[float] = []
        for step in range(reports):
            start = time.perf_counter()
            trial.report(0.5, step)
            trial.should_prune()
            costs.append((time.perf_counter() - start) * 1e6)
    return statistics.median(costs), sorted(costs)[reports * 99 // 100]


def measure_optuna_reports_per_s(storage: str, processes: int, seconds: float) -> float | str:
    """Return reports, each with a median pruner's decision, per second of several clients.

    Args:
        storage: `sqlite`, `journal`, `grpc` (over SQLite), or a URL.
        processes: Clients, each with a trial of its own.
        seconds: How long they report.
    """
    if storage == "grpc" and not has_grpc():
        return NO_GRPC
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = f"peer-{time.time_ns()}"
    with tempfile.TemporaryDirectory() as folder, open_address(storage, Path(folder)) as address:
        backend = open_storage(address)
        study = optuna.create_study(study_name=name, storage=backend)
        for _ in range(20):
            trial = study.ask()
            for step in range(20):
                trial.report(1.0 / (step + 1), step)
            study.tell(trial, 1.0)
        command = [sys.executable, "-W", "ignore", "-m", __name__, address, name, str(seconds)]
        clients = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
        ]
        return sum(float(client.communicate()[0]) for client in clients)


def _report_for(address: str, name: str, seconds: float) -> float:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=name, storage=open_storage(address), pruner=optuna.pruners.MedianPruner()
    )
    trial = study.ask()
    began = time.perf_counter()
    step = 0
    while (took := time.perf_counter() - began) < seconds:
        trial.report(0.5 / (step + 1), step)
        trial.should_prune()
        step += 1
    return step / took


def open_storage(address: str) -> BaseStorage | str:
    scheme, _, path = address.partition("://")
    if scheme == "journal":
        return JournalStorage(JournalFileBackend(path))
    if scheme == "grpc":
        return optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=int(path))
    return address


@contextmanager
def open_address(storage: str, folder: Path) -> Generator[str]:
    sqlite = f"sqlite:///{folder}/studies.db"
    if storage in ("journal", "sqlite"):
        yield sqlite if storage == "sqlite" else f"journal://{folder}/journal.log"
        return
    if storage != "grpc":
        yield storage
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    script = (
        "import optuna; optuna.logging.disable_default_handler();"
        "optuna.storages.run_grpc_proxy_server("
        f"optuna.storages.get_storage({sqlite!r}), host='127.0.0.1', port={port})"
    )
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proxy = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
        proxy.wait_server_ready(timeout=60)
        proxy.close()
        yield f"grpc://{port}"
    finally:
        server.terminate()
        server.wait()


def has_grpc() -> bool:
    """Tell whether the packages of Optuna's gRPC proxy are installed."""
    return importlib.util.find_spec("grpc") is not None


def measure_redis_events_per_s(count: int) -> float | str:
    """Return events per second through a stream (fsync on every write), or what is missing."""
    server = shutil.which("redis-server")
    if server is None:
        return "redis-server is not installed"
    try:
        redis: Any = importlib.import_module("redis")  # for this figure alone
    except ImportError:
        return "the Python package redis is not installed"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "always"]
        process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            client = redis.Redis(unix_socket_path=str(path))
            body = msgspec.msgpack.encode(make_event(0))
            began = time.perf_counter()
            last, read = "0", 0
            for _ in range(count // _BATCH):
                pipe = client.pipeline(transaction=False)
                for _ in range(_BATCH):
                    pipe.xadd("s", {"b": body})
                pipe.execute()
                answers: Any = client.xread({"s": last}, count=_BATCH)
                for _, entries in answers:
                    for identity, fields in entries:
                        msgspec.msgpack.decode(fields[b"b"])
                        last, read = identity, read + 1
            return read / (time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    print(_report_for(sys.argv[1], sys.argv[2], float(sys.argv[3])))
