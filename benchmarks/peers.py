"""What others take for the same: Optuna's report and should_prune, and Redis Streams."""

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
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from benchmarks.roles import event

_BATCH = 256


def optuna_report_us(storage: str, reports: int) -> tuple[float, float]:
    """Return p50 and p99, in microseconds, of report and should_prune on a storage, one client."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, _backend(storage, Path(folder)) as backend:
        study = optuna.create_study(storage=backend, pruner=optuna.pruners.MedianPruner())
        trial = study.ask()
        costs: list[float] = []
        for step in range(reports):
            start = time.perf_counter()
            trial.report(0.5, step)
            trial.should_prune()
            costs.append((time.perf_counter() - start) * 1e6)
    return statistics.median(costs), sorted(costs)[reports * 99 // 100]


@contextmanager
def _backend(storage: str, folder: Path) -> Generator[BaseStorage | str]:
    sqlite = f"sqlite:///{folder}/studies.db"
    if storage == "journal":
        yield JournalStorage(JournalFileBackend(f"{folder}/journal.log"))
    elif storage == "sqlite":
        yield sqlite
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        script = (
            "import optuna; optuna.storages.run_grpc_proxy_server("
            f"optuna.storages.get_storage({sqlite!r}), host='127.0.0.1', port={port})"
        )
        server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])
        try:
            proxy = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
            proxy.wait_server_ready(timeout=60)
            yield proxy
            proxy.close()
        finally:
            server.terminate()
            server.wait()


def has_grpc() -> bool:
    """Tell whether Optuna's gRPC proxy can run here."""
    return importlib.util.find_spec("grpc") is not None


def redis_events_per_s(count: int) -> float | str:
    """Return durable events per second through a stream (fsync on every write), or why not."""
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
            body = msgspec.msgpack.encode(event(0))
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
