"""Ctrl-C and SIGTERM are the orderly end of a service, which therefore exits with 0."""

from __future__ import annotations

import signal
import sys

import pytest

from support.processes import Bus, Managed
from support.until import until

pytestmark = pytest.mark.timeout(120)


def start_services(bus: Bus) -> list[Managed]:
    """Start every service and wait until each serves."""
    metrics = [sys.executable, "-m", "trialbus_services", "metrics", "--port", "0"]
    services = {
        bus.service("hub"): "serving at ",
        bus.service("optimizer"): "recording into",
        bus.service("worker", "trainer=digits"): "worker",
        bus.service("reporter"): "writing to",
        bus.service("monitor", "monitor.port=0"): " at http://",
        bus.service("dashboard", "dashboard.port=0"): "Listening on",
        bus.run("metrics", [*metrics, "--endpoint", bus.endpoint]): "metrics of ",
    }
    for service, line in services.items():
        until(
            lambda s=service, text=line: text in s.printed(), 60, f"{line!r} of {service.command}"
        )
    return list(services)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_is_told_to_end_exits_with_0(bus: Bus, number: signal.Signals) -> None:
    services = start_services(bus)
    for service in reversed(services):
        service.signal(number)
        assert service.wait(30) == 0, service.printed()
        assert "Traceback" not in service.printed()
