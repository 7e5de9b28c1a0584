"""`trialbus events` and `trialbus status` against a real hub."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

import trialbus
from support.client import Client, start_optimizer
from support.processes import Bus
from support.raw_client import RawClient
from support.until import until
from trialbus.protocol import frames, limits
from trialbus_services.cli.metrics import HubCollector

COMMAND = [sys.executable, "-m", "trialbus_services"]


@pytest.fixture
def filled(bus: Bus) -> Bus:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(trialbus.Stop(study="a", reason="enough"))
        for step in range(3):
            publisher.publish(
                trialbus.EvaluationComplete(
                    study="b", trial=1, step=step, metrics={"loss": math.nan if step == 1 else 0.5}
                )
            )
    return bus


def run(bus: Bus, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, "--endpoint", bus.endpoint]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_events_are_dumped_as_lines_for_people(filled: Bus) -> None:
    lines = run(filled, "events").stdout.splitlines()
    assert len(lines) == 4
    assert "stop" in lines[0]
    assert "reason=enough" in lines[0]


def test_events_that_cannot_be_read_are_shown_as_such(bus: Bus, raw_client: RawClient) -> None:
    bodies = {
        "stop/s/": b"\x82\xa4type\xa4stop\xa5study\xa2\xff\xfe",  # not UTF-8
        "x_list/s/": b"\x91\x01",  # no map
        "x_when/s/": b"\x81\xa2at\xa3now",  # no time
    }
    bus.hub()
    events = [(topic, msgspec.Raw(body)) for topic, body in bodies.items()]
    raw_client.send(frames.Publish(b"me", 1, events))
    assert raw_client.receive() == frames.Ack(b"me", 3, limits.MAX_WINDOW)
    done = run(bus, "events"), run(bus, "events", "--json")
    assert [len(d.stdout.splitlines()) for d in done] == [3, 3], done
    assert [d.stdout.count("unreadable") for d in done] == [2, 2]


def test_events_are_dumped_as_json_with_filters_and_nan(filled: Bus) -> None:
    done = run(filled, "events", "--json", "--study", "b", "--from", "2")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["offset"] for entry in found] == [2, 3]
    assert found[0]["event"]["metrics"] == {"loss": "nan"}
    assert found[0]["topic"] == "evaluation_complete/b/1"


def test_events_are_followed(filled: Bus) -> None:
    follower = filled.run(
        "follower", [*COMMAND, "events", "--type", "stop", "-f", "--endpoint", filled.endpoint]
    )
    until(lambda: "reason=enough" in follower.printed(), 20)
    with trialbus.Publisher(filled.endpoint) as publisher:
        publisher.publish(trialbus.Stop(study="a", reason="again"))
    until(lambda: "reason=again" in follower.printed(), 20)


def test_a_reader_that_stops_early_is_no_error(filled: Bus) -> None:
    command = " ".join([*COMMAND, "events", "--endpoint", filled.endpoint])
    done = subprocess.run(
        f"{command} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""


def test_the_status_shows_offset_rate_sessions_and_lag(filled: Bus) -> None:
    with (
        trialbus.subscribe(name="mine", start="earliest", endpoint=filled.endpoint) as inbox,
        trialbus.Presence(filled.endpoint, kind="worker", name="w") as presence,
    ):
        inbox.wait_ready()
        presence.wait_registered(10)
        found = json.loads(run(filled, "status", "--json").stdout)
        shown = run(filled, "status").stdout
    assert (found["end"], found["events_per_s"], found["durable"]["mine"]["lag"]) == (4, 0, 4)
    assert [session["name"] for session in found["sessions"]] == ["w"]
    assert "mine" in shown


def test_the_status_shows_what_each_slot_of_a_worker_has(bus: Bus) -> None:
    bus.hub()
    info = {"host": "node-7", "slots": "4", "gpus": "0.5", "cpus": "8", "memory_gb": "15.6"}
    with trialbus.Presence(bus.endpoint, kind="worker", name="w", info=info) as presence:
        presence.wait_registered(10)
        shown = run(bus, "status").stdout
    assert re.search(r"(?m)^ *w +node-7 +4 +0.5 GPUs +8 CPUs +15.6 GB *$", shown)


def test_the_status_shows_what_the_optimizer_counts(bus: Bus, client: Callable[[], Client]) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    trial = worker.run_one()
    worker.report(trial, 3, loss=1.0)  # it has ended

    def read_status() -> str | None:
        shown = run(bus, "status").stdout
        counts = [
            re.search(rf"(?m)^ *{name} +1 *$", shown) for name in ("refused", "complete trials")
        ]
        return shown if all(counts) else None

    shown = until(read_status, 20)
    assert shown is not None
    assert "its trial, or this attempt" in shown
    assert re.search(r"(?m)^ *decision +p50 [0-9.]+ ms, p99 [0-9.]+ ms *$", shown)
    registry = CollectorRegistry()
    registry.register(HubCollector(worker.link))
    metrics = generate_latest(registry).decode()
    assert 'trialbus_optimizer_trials{state="complete"} 1.0' in metrics
    for operation in ("decision", "answer", "sampling"):
        label = f'trialbus_optimizer_latency_seconds{{operation="{operation}",quantile="0.99"}}'
        [seconds] = re.findall(rf"(?m)^{re.escape(label)} (.*)$", metrics)
        assert 0 < float(seconds) < 20


def test_prometheus_reads_the_counters_and_whether_the_hub_is_up(filled: Bus) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*COMMAND, "metrics", "--port", str(port), "--endpoint", filled.endpoint]
    server = filled.run("metrics", command)
    until(lambda: "metrics of" in server.printed(), 20)

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return answer.read().decode()

    assert "trialbus_events_total 4.0" in scraped()
    assert "trialbus_up 1.0" in scraped()
    filled.processes["hub"].kill()
    assert "trialbus_up 0.0" in scraped()
    assert "trialbus_up 0.0" in scraped()
    assert server.printed().count("; trialbus_up is 0") == 1
    server.signal(signal.SIGINT)
    assert server.wait(20) == 0


def test_events_without_a_match_say_so_beside_the_output(filled: Bus) -> None:
    done = run(filled, "events", "--study", "nope")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "the log has no such event\n"


def test_forget_says_what_it_did(filled: Bus) -> None:
    with trialbus.subscribe(name="mine", start="earliest", endpoint=filled.endpoint) as inbox:
        assert inbox.next(20) is not None
        assert inbox.commit(wait_s=20)
    done = run(filled, "forget", "--name", "mine")
    assert (done.returncode, done.stdout) == (0, "forgot the durable name 'mine'\n"), done.stderr


@pytest.mark.parametrize("name", ["events", "status"])
def test_without_a_hub_it_says_what_to_start(bus: Bus, name: str) -> None:
    done = run(bus, name)
    assert done.returncode == 1
    assert "no hub answered" in done.stderr
    assert "Traceback" not in done.stderr
