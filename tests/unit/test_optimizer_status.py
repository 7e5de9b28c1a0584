"""The optimizer's status: measurements, encoding in the session, metrics of Prometheus."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from trialbus.client.link import Link
from trialbus.protocol import frames
from trialbus.protocol.status import HubStatus, SessionStatus
from trialbus_services.cli import metrics
from trialbus_services.cli.inspect import list_optimizer_rows
from trialbus_services.optimizer.latency import Latency, Percentiles
from trialbus_services.optimizer.status import OptimizerStatus, from_info, to_info

STATUS = OptimizerStatus(
    studies=2,
    complete=5,
    pruned=3,
    failed=1,
    running=4,
    n_paused=1,
    paused="digits",
    applied=120,
    refused={"its values": 2, "its study does not run": 1},
    last_refused="its values: event 7",
    pending_rows=9,
    storage_error="database is locked",
    decision=Percentiles(p50_s=0.0004, p99_s=0.0021),
    sampling=Percentiles(p50_s=0.5, p99_s=1.0),
)


def test_percentiles_are_those_of_the_newest_thousand_latencies() -> None:
    latency = Latency()
    assert latency.compute_percentiles() is None
    latency.add(3.0)
    assert latency.compute_percentiles() == Percentiles(3.0, 3.0)
    for milliseconds in range(1001):
        latency.add(milliseconds / 1000)
    percentiles = latency.compute_percentiles()
    assert percentiles is not None
    assert percentiles.p50_s == pytest.approx(0.5005)
    assert percentiles.p99_s == pytest.approx(0.99, abs=0.001)


def test_a_status_survives_the_hub_beside_other_information() -> None:
    hello = frames.Hello("s", "optimizer", "o", 4000, info={"pid": "7", **to_info(STATUS)})
    info = msgspec.json.decode(msgspec.json.encode(hello.info))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(hello), type=frames.Hello) == hello
    assert from_info(info) == STATUS


def test_texts_are_cut_to_what_the_hub_takes() -> None:
    info = to_info(OptimizerStatus(last_refused="x" * 1000, paused="y" * 1000))
    assert all(len(value) <= 256 for value in info.values() if isinstance(value, str))


def test_the_information_of_another_version_is_no_status() -> None:
    assert from_info({"studies": "2", "decision": "p50 400 us, p99 2100 us"}) is None


def scrape(monkeypatch: pytest.MonkeyPatch, info: dict[str, Any]) -> list[str]:
    session = SessionStatus(session="s", kind="optimizer", info=info)

    def answer(*_: object) -> HubStatus:
        return HubStatus(log_id="a", end=1, sessions=[session])

    monkeypatch.setattr(metrics, "hub_status", answer)
    registry = CollectorRegistry()
    registry.register(metrics.HubCollector(cast(Link, None)))
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "trialbus_optimizer" in line]


def test_prometheus_reads_counters_gauges_and_latencies_with_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert scrape(monkeypatch, {"pid": "7", **to_info(STATUS)}) == [
        "# HELP trialbus_optimizer_studies Running studies.",
        "# TYPE trialbus_optimizer_studies gauge",
        "trialbus_optimizer_studies 2.0",
        "# HELP trialbus_optimizer_paused_studies Paused studies.",
        "# TYPE trialbus_optimizer_paused_studies gauge",
        "trialbus_optimizer_paused_studies 1.0",
        "# HELP trialbus_optimizer_trials Trials of the running studies.",
        "# TYPE trialbus_optimizer_trials gauge",
        'trialbus_optimizer_trials{state="complete"} 5.0',
        'trialbus_optimizer_trials{state="pruned"} 3.0',
        'trialbus_optimizer_trials{state="failed"} 1.0',
        'trialbus_optimizer_trials{state="running"} 4.0',
        "# HELP trialbus_optimizer_applied_events_total Events applied.",
        "# TYPE trialbus_optimizer_applied_events_total counter",
        "trialbus_optimizer_applied_events_total 120.0",
        "# HELP trialbus_optimizer_refused_events_total Events not applied.",
        "# TYPE trialbus_optimizer_refused_events_total counter",
        'trialbus_optimizer_refused_events_total{reason="its values"} 2.0',
        'trialbus_optimizer_refused_events_total{reason="its study does not run"} 1.0',
        "# HELP trialbus_optimizer_pending_rows Rows not written to the storage yet.",
        "# TYPE trialbus_optimizer_pending_rows gauge",
        "trialbus_optimizer_pending_rows 9.0",
        "# HELP trialbus_optimizer_storage_failing Whether the storage cannot be written now.",
        "# TYPE trialbus_optimizer_storage_failing gauge",
        "trialbus_optimizer_storage_failing 1.0",
        "# HELP trialbus_optimizer_latency_seconds Latency of the newest 1000 operations.",
        "# TYPE trialbus_optimizer_latency_seconds gauge",
        'trialbus_optimizer_latency_seconds{operation="decision",quantile="0.5"} 0.0004',
        'trialbus_optimizer_latency_seconds{operation="decision",quantile="0.99"} 0.0021',
        'trialbus_optimizer_latency_seconds{operation="sampling",quantile="0.5"} 0.5',
        'trialbus_optimizer_latency_seconds{operation="sampling",quantile="0.99"} 1.0',
    ]


def test_the_status_shows_no_counts_of_trials_when_no_study_runs() -> None:
    names = dict(list_optimizer_rows(to_info(OptimizerStatus())))
    assert names["running studies"] == "0"
    assert "complete trials" not in names
    assert dict(list_optimizer_rows(to_info(STATUS)))["complete trials"] == "5"


def test_an_optimizer_of_another_version_does_not_disturb_prometheus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert scrape(monkeypatch, {"studies": "2", "decision": "p50 400 us"}) == []
