"""Run the live page as a process."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket

import uvicorn

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus_services.config.secrets import UNMASKED
from trialbus_services.config.settings import BusSettings, MonitorSettings
from trialbus_services.monitor.access import TOKEN_PARAMETER, Access
from trialbus_services.monitor.app import Monitor
from trialbus_services.process import exit_codes
from trialbus_services.process.listening import listen
from trialbus_services.process.signals import install_stop_event

logger = logging.getLogger(__name__)

_TTL_S = 10.0


def run(bus: BusSettings, monitor: MonitorSettings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    Raises:
        SpecError: The address cannot be used.
        HubUnavailableError: No hub answered at start.
    """
    install_stop_event()  # uvicorn raises its signal again at the end, which this handles
    listener = listen(monitor.host, monitor.port, host_key="monitor.host", port_key="monitor.port")
    with listener, Link(bus.endpoint) as link:
        link.wait_connected(bus.connect_s)
        loopback = _is_loopback(listener)
        url = _format_url(monitor.host, listener)
        token = monitor.token
        if token is None:
            token = secrets.token_urlsafe(24)
            url += f"?{TOKEN_PARAMETER}={token}"
        access = Access(token, loopback=loopback, readable=loopback and monitor.token is None)
        # The reader needs the token that is in the URL.
        logger.info("serving %s at %s", link.endpoint, url, extra=UNMASKED)
        app = Monitor(link, bus.logs / "trials", access).app
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=1, server_header=False
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        with Presence(link=link, kind="monitor", name="monitor", ttl_s=_TTL_S):
            uvicorn.Server(config).run([listener])
    return exit_codes.DONE


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _format_url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
