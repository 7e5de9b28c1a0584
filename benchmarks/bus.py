"""Benchmark of the bus: cost of publishing, throughput, latency, and the hub's memory."""

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
    """Numbers of events and rounds of a measurement."""

    events: int
    crowd: int
    heavy: int
    rounds: int


FULL = Size(events=200_000, crowd=192_000, heavy=5_000_000, rounds=3)
QUICK = Size(events=40_000, crowd=64_000, heavy=192_000, rounds=1)
_LATENCY_RATE = 5000
_PUBLISH_RATE = 1000


class Bench:
    """A hub and its clients, each a process."""

    def __init__(self, folder: Path, *, keys: bool = False) -> None:
        self.endpoint = f"ipc://{folder}/hub.sock"
        command = [sys.executable, "-m", "trialbus.hub", "--endpoint", self.endpoint]
        self._environment = dict(os.environ)
        if keys:
            security.create_keys(folder / "keys", "hub", "service")
            client_key = security.create_keys(folder / "keys", "own", "service")
            command += ["--keys", str(folder / "keys")]
            self._environment |= {
                security.KEY_VARIABLE: str(client_key),
                security.HUB_KEY_VARIABLE: str(folder / "keys" / "hub.pub"),
            }
        self._command = [*command, "--dir", str(folder)]
        self.start_hub()

    def start_hub(self) -> None:
        self.hub = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def publish_from_crowd(self, count: int) -> list[dict[str, Any]]:
        """Publish from a thousand connections, each with a session."""
        processes = [self.start_role("crowd", count // 2, 500) for _ in range(2)]
        return [read_result(process) for process in processes]

    def start_role(self, role: str, count: int, rate: float = 0) -> subprocess.Popen[str]:
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

    def stop_hub(self) -> None:
        self.hub.terminate()
        self.hub.wait()


@contextmanager
def start_bench(*, keys: bool = False) -> Generator[Bench]:
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
        bench = Bench(Path(folder), keys=keys)
        try:
            yield bench
        finally:
            bench.stop_hub()


def read_result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the JSON object in the last line that a role printed."""
    out, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def measure_throughput(
    count: int, subscribers: int, rate: float = 0, *, role: str = "publish", keys: bool = False
) -> dict[str, float]:
    """Publish from one process; return the subscribers' events per second and latencies in ms."""
    with start_bench(keys=keys) as bench:
        readers = [bench.start_role("subscribe", count) for _ in range(subscribers)]
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        published = read_result(bench.start_role(role, count, rate))
        received = [read_result(reader) for reader in readers]
    last = max(figures["ended"] for figures in received)
    return {
        "per_s": count / (last - published["began"]),
        "p50_ms": statistics.median(figures["p50_ms"] for figures in received),
        "p99_ms": max(figures["p99_ms"] for figures in received),
        "publish_p50_us": published["p50_us"],
        "publish_p99_us": published["p99_us"],
    }


def measure_crowd(count: int) -> float:
    """Publish from a thousand connections; return events per second."""
    with start_bench() as bench:
        results = bench.publish_from_crowd(count)
    ended, began = max(r["ended"] for r in results), min(r["began"] for r in results)
    return sum(r["count"] for r in results) / (ended - began)


def measure_hub(count: int) -> tuple[float, float]:
    """Return memory in MB and start-up in s of a hub after many events and 1,000 sessions."""
    with start_bench() as bench:
        bench.publish_from_crowd(count)
        rss = psutil.Process(bench.hub.pid).memory_info().rss / 2**20
        bench.stop_hub()
        began = time.perf_counter()
        bench.start_hub()
        with Link(bench.endpoint) as link:
            link.wait_connected(60)
            return rss, time.perf_counter() - began


def run(size: Size) -> dict[str, Any]:
    """Measure all figures, in rounds, and return medians by name."""
    rounds = [_measure_round(size) for _ in range(size.rounds)]
    rss, start_up = measure_hub(size.heavy)
    names = rounds[0].keys()
    figures: dict[str, Any] = {
        name: _compute_median([measured[name] for measured in rounds]) for name in names
    }
    skipped = {name: value for name, value in figures.items() if isinstance(value, str)}
    figures |= {"hub_rss_mb": rss, "hub_start_up_s": start_up}
    return figures | dict.fromkeys(skipped) | {"skipped": skipped}


def _measure_round(size: Size) -> dict[str, Any]:
    plain = measure_throughput(size.events, 1)
    four = measure_throughput(size.events // 2, 4)
    many = measure_crowd(size.crowd)
    slow = measure_throughput(3 * _PUBLISH_RATE, 1, _PUBLISH_RATE, role="train")
    beside = measure_throughput(3 * _LATENCY_RATE, 1, _LATENCY_RATE, role="train")
    timed = measure_throughput(3 * _LATENCY_RATE, 1, _LATENCY_RATE)
    encrypted = measure_throughput(3 * _LATENCY_RATE, 1, _LATENCY_RATE, keys=True)
    redis = peers.measure_redis_events_per_s(size.events // 4)
    sqlite, sqlite_p99 = peers.measure_optuna_report_us("sqlite", 300)
    journal, journal_p99 = peers.measure_optuna_report_us("journal", 1000)
    grpc: tuple[Any, Any] = (
        peers.measure_optuna_report_us("grpc", 300)
        if peers.has_grpc()
        else (peers.NO_GRPC, peers.NO_GRPC)
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


def _compute_median(values: list[Any]) -> Any:
    texts = [value for value in values if isinstance(value, str)]
    return texts[0] if texts else statistics.median(values)


__all__ = ["FULL", "QUICK", "Size", "roles", "run"]
