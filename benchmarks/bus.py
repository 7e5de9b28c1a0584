"""The bus: what publishing costs, how much passes, how long it takes, what the hub needs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import peers, roles
from trialbus.client.link import Link
from trialbus.protocol import security


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    events: int
    crowd: int
    heavy: int
    rounds: int


FULL = Size(events=200_000, crowd=192_000, heavy=5_000_000, rounds=3)
QUICK = Size(events=40_000, crowd=64_000, heavy=192_000, rounds=1)
_LATENCY_RATE = 5000
_PUBLISH_RATE = 1000


class Bench:
    """A hub as a process, and others that talk to it."""

    def __init__(self, folder: Path, *, keys: bool = False) -> None:
        self.endpoint = f"ipc://{folder}/hub.sock"
        command = [sys.executable, "-m", "trialbus.hub", "--endpoint", self.endpoint]
        self._environment = dict(os.environ)
        if keys:
            security.new_keys(folder / "keys", "hub", "service")
            own = security.new_keys(folder / "keys", "own", "service")
            command += ["--keys", str(folder / "keys")]
            self._environment |= {
                security.KEY_VARIABLE: str(own),
                security.HUB_KEY_VARIABLE: str(folder / "keys" / "hub.pub"),
            }
        self._command = [*command, "--dir", str(folder)]
        self.begin()

    def begin(self) -> None:
        self.hub = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def crowd(self, count: int) -> list[dict[str, Any]]:
        """Publish from a thousand connections, each with a session."""
        processes = [self.start("crowd", count // 2, 500) for _ in range(2)]
        return [result(process) for process in processes]

    def start(self, role: str, count: int, rate: float = 0) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "benchmarks.roles",
            role,
            self.endpoint,
            str(count),
            str(rate),
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)

    def end(self) -> None:
        self.hub.terminate()
        self.hub.wait()


@contextmanager
def bench(*, keys: bool = False) -> Generator[Bench]:
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
        made = Bench(Path(folder), keys=keys)
        try:
            yield made
        finally:
            made.end()


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the last line of a role, as JSON."""
    out, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def pass_through(
    count: int, subscribers: int, rate: float = 0, *, by: str = "publish", keys: bool = False
) -> dict[str, float]:
    """Publish from one process to others; return events per second, and latencies in ms."""
    with bench(keys=keys) as on:
        readers = [on.start("subscribe", count) for _ in range(subscribers)]
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        sent = result(on.start(by, count, rate))
        read = [result(reader) for reader in readers]
    last = max(found["ended"] for found in read)
    return {
        "per_s": count / (last - sent["began"]),
        "p50_ms": statistics.median(found["p50_ms"] for found in read),
        "p99_ms": max(found["p99_ms"] for found in read),
        "publish_p50_us": sent["p50_us"],
        "publish_p99_us": sent["p99_us"],
    }


def crowd(count: int) -> float:
    """Publish from a thousand connections; return events per second."""
    with bench() as on:
        found = on.crowd(count)
    ended, began = max(f["ended"] for f in found), min(f["began"] for f in found)
    return sum(f["count"] for f in found) / (ended - began)


def heavy(count: int) -> tuple[float, float]:
    """Return the hub's memory in MB after many events and 1,000 sessions, and its start-up in s."""
    with bench() as on:
        on.crowd(count)
        rss = psutil.Process(on.hub.pid).memory_info().rss / 2**20
        on.end()
        began = time.perf_counter()
        on.begin()
        with Link(on.endpoint) as link:
            link.wait_connected(60)
            return rss, time.perf_counter() - began


def run(size: Size) -> dict[str, Any]:
    """Measure everything, in rounds one after another, and return medians by name."""
    rounds = [_round(size) for _ in range(size.rounds)]
    rss, start_up = heavy(size.heavy)
    names = rounds[0].keys()
    found: dict[str, Any] = {
        name: _median([measured[name] for measured in rounds]) for name in names
    }
    skipped = {name: value for name, value in found.items() if isinstance(value, str)}
    found |= {"hub_rss_mb": rss, "hub_start_up_s": start_up}
    return found | dict.fromkeys(skipped) | {"skipped": skipped}


def _round(size: Size) -> dict[str, Any]:
    plain = pass_through(size.events, 1)
    four = pass_through(size.events // 2, 4)
    many = crowd(size.crowd)
    slow = pass_through(3 * _PUBLISH_RATE, 1, _PUBLISH_RATE, by="train")
    beside = pass_through(3 * _LATENCY_RATE, 1, _LATENCY_RATE, by="train")
    timed = pass_through(3 * _LATENCY_RATE, 1, _LATENCY_RATE)
    encrypted = pass_through(3 * _LATENCY_RATE, 1, _LATENCY_RATE, keys=True)
    redis = peers.redis_events_per_s(size.events // 4)
    sqlite, sqlite_p99 = peers.optuna_report_us("sqlite", 300)
    journal, journal_p99 = peers.optuna_report_us("journal", 1000)
    grpc: tuple[Any, Any] = (
        peers.optuna_report_us("grpc", 300) if peers.has_grpc() else (peers.NO_GRPC, peers.NO_GRPC)
    )
    return {
        "publish_p50_us": slow["publish_p50_us"],
        "publish_p99_us": slow["publish_p99_us"],
        "optuna_sqlite_report_p50_us": sqlite,
        "optuna_sqlite_report_p99_us": sqlite_p99,
        "optuna_journal_report_p50_us": journal,
        "optuna_journal_report_p99_us": journal_p99,
        "optuna_grpc_report_p50_us": grpc[0],
        "optuna_grpc_report_p99_us": grpc[1],
        "durable_events_per_s": plain["per_s"],
        "durable_events_per_s_4_subscribers": four["per_s"],
        "durable_events_per_s_1000_publishers": many,
        "ratio_redis_aof_always": redis if isinstance(redis, str) else plain["per_s"] / redis,
        "latency_p50_ms": timed["p50_ms"],
        "latency_p99_ms": timed["p99_ms"],
        "latency_beside_training_p50_ms": beside["p50_ms"],
        "latency_beside_training_p99_ms": beside["p99_ms"],
        "ratio_curve_latency": encrypted["p50_ms"] / timed["p50_ms"],
    }


def _median(values: list[Any]) -> Any:
    texts = [value for value in values if isinstance(value, str)]
    return texts[0] if texts else statistics.median(values)


__all__ = ["FULL", "QUICK", "Size", "roles", "run"]
