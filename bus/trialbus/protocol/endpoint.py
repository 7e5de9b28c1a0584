"""Endpoint of the hub: default, absolute path, and the addresses that may be bound."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import zmq

from trialbus.errors import SpecError
from trialbus.protocol.start_folder import resolve_from_start

ENDPOINT_VARIABLE = "TRIALBUS_ENDPOINT"
DEFAULT_ENDPOINT = "ipc://.trialbus/hub.sock"
_IPC = "ipc://"
_PROBE_S = 1.0  # for a process to accept a connection
_IPC_MAX_BYTES = 107  # sizeof(sockaddr_un.sun_path) - 1 on Linux


def resolve(endpoint: str | None = None) -> str:
    """Return an endpoint with an absolute path; None means `$TRIALBUS_ENDPOINT` or the default.

    A relative path of an `ipc://` endpoint is made absolute, so that it stays the same socket when
    the process changes its directory.

    Raises:
        SpecError: It is neither `ipc://<path>` nor `tcp://<host>:<port>`, or the path is too long
            for a socket.
    """
    text = endpoint or _find_endpoint()
    key = find_endpoint_source(text) or "bus.endpoint"
    if text.startswith(_IPC):
        path = _make_absolute(text).removeprefix(_IPC)
        if len(os.fsencode(path)) > _IPC_MAX_BYTES:
            raise SpecError(
                key,
                f"{text!r} is too long for a socket ({len(path)} bytes, at most {_IPC_MAX_BYTES}); "
                "use a shorter path or tcp://127.0.0.1:<port>",
            )
        return _IPC + path
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    if not text.startswith("tcp://") or not host or not (port.isdigit() and 0 < int(port) < 65536):
        raise SpecError(key, f"{text!r} is not ipc://<path> or tcp://<host>:<port>")
    return text


def resolve_at_start(endpoint: str | None) -> str | None:
    """Return an endpoint for `resolve`, where the process may have changed its directory.

    The path of `$TRIALBUS_ENDPOINT`, or of the default, counts from where the process started.

    Args:
        endpoint: Endpoint of a caller, which is returned as it is; None means the environment's.
    """
    text = _find_endpoint()
    if endpoint or not text.startswith(_IPC):
        return endpoint
    path = resolve_from_start(text.removeprefix(_IPC))
    return None if path == Path(_make_absolute(text).removeprefix(_IPC)) else f"{_IPC}{path}"


def find_endpoint_source(endpoint: str | None = None) -> str:
    """Return `$TRIALBUS_ENDPOINT` if an endpoint comes from there; otherwise an empty text.

    Args:
        endpoint: Endpoint, resolved or not; None means the one that the environment names.
    """
    text = os.environ.get(ENDPOINT_VARIABLE)
    if not text or endpoint not in (None, text, _make_absolute(text)):
        return ""
    return f"${ENDPOINT_VARIABLE}"


def is_local(endpoint: str) -> bool:
    """Tell whether only this machine can reach the endpoint."""
    if endpoint.startswith(_IPC):
        return True
    import ipaddress

    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_served(endpoint: str) -> bool:
    """Tell whether a process of this machine listens at an endpoint of this machine."""
    kind, place = _locate_socket(endpoint)
    with socket.socket(kind) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(place)
        except TimeoutError:
            return True  # its queue of connections is full
        except OSError:
            return False
    return True


def _locate_socket(endpoint: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    if endpoint.startswith(_IPC):
        return socket.AF_UNIX, endpoint.removeprefix(_IPC)
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return family, (host.strip("[]"), int(port))


def _find_endpoint() -> str:
    return os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT


def _make_absolute(endpoint: str) -> str:
    """Return an endpoint with the absolute path of its socket, if it has one."""
    if not endpoint.startswith(_IPC):
        return endpoint
    return _IPC + str(Path(endpoint.removeprefix(_IPC)).absolute())


def check_bindable(endpoint: str, *, guarded: bool, insecure: bool) -> None:
    """Refuse an address that strangers can reach.

    Raises:
        SpecError: The endpoint is beyond loopback, is not `guarded` by keys, and `insecure` is not
            set.
    """
    if not (guarded or insecure or is_local(endpoint)):
        raise SpecError(
            "bus.endpoint",
            f"{endpoint!r} can be reached from other machines and nothing authenticates them; "
            "use keys (bus=curve), bind to tcp://127.0.0.1:<port> or ipc://, "
            "or accept it with bus.insecure=true",
        )


def check_reachable(endpoint: str, *, guarded: bool, insecure: bool) -> None:
    """Refuse an address that the hub will refuse to bind, as far as a client can tell.

    A wildcard is an address to bind, so that whoever names it means to start the hub himself.

    Raises:
        SpecError: See `check_bindable`.
    """
    if endpoint.startswith(("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:")):
        check_bindable(endpoint, guarded=guarded, insecure=insecure)


def notice_dead_hosts(peer: zmq.Socket[bytes]) -> None:
    """Let the kernel close a socket's TCP connections to hosts that do not answer for 15 seconds.

    libzmq's own heartbeats can end the process by an assertion, see `trialbus.hub.router`.
    """
    peer.set(zmq.TCP_KEEPALIVE, 1)
    peer.set(zmq.TCP_KEEPALIVE_IDLE, 5)
    peer.set(zmq.TCP_KEEPALIVE_INTVL, 5)
    peer.set(zmq.TCP_KEEPALIVE_CNT, 2)
    peer.set(zmq.TCP_MAXRT, 15_000)
