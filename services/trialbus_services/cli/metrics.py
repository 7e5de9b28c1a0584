"""`trialbus metrics`: the status of a hub and of an optimizer for Prometheus."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.errors import HubUnavailableError
from trialbus_services.cli.options import add_endpoint
from trialbus_services.optimizer.latency import Percentiles
from trialbus_services.optimizer.status import OptimizerStatus, from_info
from trialbus_services.process import exit_codes
from trialbus_services.process.listening import listen
from trialbus_services.process.signals import install_stop_event

_TIMEOUT_S = 3.0


class HubCollector(Collector):
    """Metrics of a hub, which is asked at every scrape; `trialbus_up` is 0 without an answer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_reported = False  # that no hub answers

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics at this moment."""
        up = GaugeMetricFamily("trialbus_up", "Whether the hub answers.")
        try:
            status = hub_status(self._link, _TIMEOUT_S)
        except HubUnavailableError as error:
            if not self._is_reported:
                print(f"{error}; trialbus_up is 0", file=sys.stderr, flush=True)
            self._is_reported = True
            up.add_metric([], 0)
            yield up
            return
        self._is_reported = False
        up.add_metric([], 1)
        yield up
        yield CounterMetricFamily("trialbus_events", "Events in the log.", value=status.end)
        yield GaugeMetricFamily("trialbus_parked", "Fetches that wait.", value=status.parked)
        counters = CounterMetricFamily("trialbus_hub", "The hub's counters.", labels=["what"])
        for name, value in status.counters.items():
            counters.add_metric([name], value)
        yield counters
        lag = GaugeMetricFamily(
            "trialbus_lag",
            "Events in the log after a durable name's offset, also those the name does not read.",
            labels=["name"],
        )
        for name, progress in status.durable.items():
            lag.add_metric([name], progress.lag)
        yield lag
        sessions = GaugeMetricFamily("trialbus_sessions", "Live sessions.", labels=["kind"])
        for kind, count in Counter(s.kind for s in status.sessions).items():
            sessions.add_metric([kind], count)
        yield sessions
        for session in status.sessions:
            optimizer_status = from_info(session.info)
            if session.kind == "optimizer" and optimizer_status is not None:
                yield from _collect_optimizer(optimizer_status)


def _collect_optimizer(status: OptimizerStatus) -> Iterator[Metric]:
    prefix = "trialbus_optimizer"
    yield GaugeMetricFamily(f"{prefix}_studies", "Running studies.", value=status.studies)
    yield GaugeMetricFamily(f"{prefix}_paused_studies", "Paused studies.", value=status.n_paused)
    trials = GaugeMetricFamily(
        f"{prefix}_trials", "Trials of the running studies.", labels=["state"]
    )
    for state in ("complete", "pruned", "failed", "running"):
        trials.add_metric([state], getattr(status, state))
    yield trials
    yield CounterMetricFamily(f"{prefix}_applied_events", "Events applied.", value=status.applied)
    refused = CounterMetricFamily(
        f"{prefix}_refused_events", "Events not applied.", labels=["reason"]
    )
    for reason, count in status.refused.items():
        refused.add_metric([reason], count)
    yield refused
    yield GaugeMetricFamily(
        f"{prefix}_pending_rows", "Rows not written to the storage yet.", value=status.pending_rows
    )
    yield GaugeMetricFamily(
        f"{prefix}_storage_failing",
        "Whether the storage cannot be written now.",
        value=bool(status.storage_error),
    )
    latency = GaugeMetricFamily(
        f"{prefix}_latency_seconds",
        "Latency of the newest 1000 operations.",
        labels=["operation", "quantile"],
    )
    for operation in ("decision", "answer", "sampling"):
        percentiles: Percentiles | None = getattr(status, operation)
        if percentiles is not None:
            latency.add_metric([operation, "0.5"], percentiles.p50_s)
            latency.add_metric([operation, "0.99"], percentiles.p99_s)
    yield latency


def metrics(arguments: list[str]) -> int:
    """Serve metrics until SIGTERM or Ctrl-C and return the exit code.

    Raises:
        SpecError: The address cannot be bound.
    """
    parser = argparse.ArgumentParser(prog="trialbus metrics", description=__doc__)
    parser.add_argument("--port", type=int, default=9464, help="default: %(default)s")
    parser.add_argument("--address", default="127.0.0.1", help="default: %(default)s")
    add_endpoint(parser)
    options = parser.parse_args(arguments)
    stop = install_stop_event()
    registry = CollectorRegistry()
    with Link(options.endpoint) as link:
        collector = HubCollector(link)
        registry.register(collector)
        listen(options.address, options.port, host_key="--address", port_key="--port").close()
        server, thread = start_http_server(options.port, options.address, registry)
        address = f"http://{options.address}:{server.server_port}/metrics"
        print(f"metrics of {link.endpoint} on {address}", flush=True)
        for _ in collector.collect():  # a hub that does not answer is named now
            pass
        stop.wait()
        server.shutdown()
        thread.join()
    return exit_codes.DONE
